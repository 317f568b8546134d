//! A simulated iSCSI initiator: the client library that `offhost` and its tests use, a conformance suite that runs against
//! anybody's target, and a load generator.

pub mod client;
pub mod load;
pub mod report;
pub mod suite;
pub mod url;
