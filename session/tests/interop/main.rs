//! Unmodified SLIM applications (Python, slim-bindings 3.3.8, identity binding enforced) and ours, in every role.
//!
//! Each test starts its own node. `SLIMLINE_TEST_PYTHON` is a Python with slim-bindings; `SLIMLINE_TEST_NODE` is the node:
//! `embedded` (the one in the wheel, default) or the path of a node binary that takes `--config FILE`.
//! What the node does not serve yet is told on standard error: `SKIPPED …: the node says: …`.
//! Run: `SLIMLINE_TEST_PYTHON=venv/bin/python cargo test -p slimline-session --test interop -- --ignored`

#[path = "../common/agent.rs"]
mod agent;
mod faults;
mod groups;
mod identities;
mod kit;
mod lifetimes;
mod nodes;
mod point_to_point;
mod programs;
mod relay;
mod transports;
