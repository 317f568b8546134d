//! What the target and its movers say to each other, and the table both look at.

pub mod ends;
