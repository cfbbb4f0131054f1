//! slimline, a SLIM messaging node.
