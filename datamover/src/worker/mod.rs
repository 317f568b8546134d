//! The mover: carries out copy jobs, and can do nothing else.

pub mod view;
