//! The prost types of package `dataplane.proto.v1`: for sessions, tests and tools.
//!
//! The node never enables this feature: its hot path reads fields in place ([`crate::message`]).
#![allow(missing_docs, clippy::doc_markdown, clippy::large_enum_variant)] // generated
include!(concat!(env!("OUT_DIR"), "/dataplane.proto.v1.rs"));
