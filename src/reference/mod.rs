//! Plain Rust twins of the kernels in `f64`, for tests, benches and `doctor`.
