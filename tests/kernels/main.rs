//! Every kernel on the device in hand, against the float64 reference.

mod cases;
mod gpu;
mod matmul;
mod plan;
