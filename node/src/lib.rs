//! slimline, a SLIM messaging node.

pub mod io;
