//! Plain Rust twins of the kernels in `f64`: what the tests, the benches and the device check
//! compare a GPU result with.
//!
//! They are meant to be read: each function states its formula and follows it in plain loops.
//! The files carry the stems of the kernels they stand beside.
//!
//! Conventions:
//!
//! - Tensors are flat slices in row-major order; a comment such as `[T, C]` gives the shape. Sizes
//!   are `usize`; indices that a device buffer holds (tokens, positions, rows) are `u32`.
//! - `T` packed tokens, `C` model width, `H` query heads, `G` key/value heads, `D` head width,
//!   `V` vocabulary, `A` answers, `P` pairs, `N` targets.
//! - `<op>_forward` and `<op>_backward`; a backward takes the gradient of the loss with respect to
//!   the output (`dout`) and returns new gradients, named `d<input>`. Adding gradients of several
//!   uses together is the caller's work.
//! - Inputs are trusted: a slice that does not fit its stated shape, or an index outside of it, is
//!   a mistake of the caller and panics as slice indexing does. Only what reads named parameters
//!   ([`transformer`]) returns errors.
//! - Nothing is limited to `f32`'s range or precision, and nothing is flushed to zero.

pub mod compare;
pub mod gradient;
pub mod nn;
pub mod optim;
pub mod policy;
pub mod preference;
pub mod random;
pub mod reduce;
pub mod transformer;
