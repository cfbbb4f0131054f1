//! What tests and fuzz targets share: properties that hold for any octets, and messages made up by seed.

#[cfg(feature = "prost")]
pub mod message;
