//! Generates the prost types of `proto/`, for the `prost` feature only; no protoc is run.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=proto");
    #[cfg(feature = "prost")]
    generate();
}

#[cfg(feature = "prost")]
fn generate() {
    let descriptors = protox::compile(["proto/dataplane.proto"], ["proto"]).expect("proto/dataplane.proto compiles");
    prost_build::Config::new()
        .btree_map(["."]) // the same message always encodes to the same octets
        .compile_fds(descriptors)
        .expect("prost-build writes to OUT_DIR");
}
