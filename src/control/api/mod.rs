//! What travels between a server and those who ask it: commands on this node, other servers, the dashboard. Types alone, for serde; an
//! error is a [`crate::error::ErrorReport`].

pub mod events;
pub mod maintenance;
pub mod snapshots;
pub mod status;
