//! The crate's one error type: what went wrong, where, and what to do about it.

use std::path::PathBuf;

/// A `Result` with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong in this crate.
///
/// Each message says what happened, where, and what the caller can do. Nothing here is raised by
/// a panic: a host application decides for itself what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No adapter fits; `hint` names what to install on this system.
    #[error("no usable GPU adapter: {detail}. {hint}")]
    NoAdapter {
        /// What was asked for and what was found.
        detail: String,
        /// What to install or set.
        hint: &'static str,
    },

    /// The adapter refused to give a device, or the device reported a fault.
    #[error("the GPU device failed during {during}: {detail}")]
    Device {
        /// What the crate was doing.
        during: String,
        /// What the driver or wgpu said.
        detail: String,
    },

    /// The device is gone: unplugged, reset by the system after a long dispatch, or destroyed.
    #[error(
        "the GPU device was lost ({reason}); what was saved before is intact: make a new `Gpu` and resume from the last checkpoint"
    )]
    DeviceLost {
        /// The reason the driver gave.
        reason: String,
    },

    /// The device has no memory left for a buffer.
    #[error(
        "out of GPU memory: `{what}` needs {bytes} bytes; use a smaller batch, context or model"
    )]
    OutOfMemory {
        /// The buffer that did not fit.
        what: String,
        /// Its size in bytes.
        bytes: u64,
    },

    /// A plan of memory exceeds what there is.
    #[error(
        "{needed} of GPU memory are needed, over {limit}: {plan}; use a smaller batch, context or model, or raise the budget"
    )]
    Memory {
        /// What the plan takes in all.
        needed: String,
        /// What is exceeded: the device's memory or a budget, and how large it is.
        limit: String,
        /// What takes how much.
        plan: String,
    },

    /// Something is larger than a limit of the device in hand.
    #[error("`{what}` needs {needed} but the device's {limit_name} is {limit}: {hint}")]
    Limit {
        /// The tensor, dispatch or shader concerned.
        what: String,
        /// What it needs.
        needed: u64,
        /// The limit's name in WebGPU's terms.
        limit_name: &'static str,
        /// The device's value for it.
        limit: u64,
        /// What to change.
        hint: &'static str,
    },

    /// Shapes, types or options that do not agree.
    #[error("{op}: {detail}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// Which shapes, and what was expected.
        detail: String,
    },

    /// One dispatch would read one window of a buffer and write another of the same buffer.
    #[error(
        "{op}: `{read}` is read and `{written}` is written, but both are windows of one buffer, which WebGPU refuses: give one of them a buffer of its own"
    )]
    Overlap {
        /// The dispatch.
        op: String,
        /// The tensor that is read.
        read: String,
        /// The tensor that is written.
        written: String,
    },

    /// A shader did not compile on this device.
    #[error("shader `{shader}` was refused: {detail}")]
    Shader {
        /// The shader's name, as in `nn.matmul`.
        shader: String,
        /// The compiler's message.
        detail: String,
    },

    /// Input data that cannot be used.
    #[error("{place}: {detail}")]
    Data {
        /// File and line, as far as they are known.
        place: String,
        /// What is wrong and what would be right.
        detail: String,
    },

    /// A model configuration, weight file or tokenizer that cannot be used.
    #[error("{place}: {detail}")]
    Model {
        /// The file, or the field of it.
        place: String,
        /// What is wrong and what would be right.
        detail: String,
    },

    /// A checkpoint that cannot be resumed.
    #[error("checkpoint {}: {detail}", path.display())]
    Checkpoint {
        /// The checkpoint's folder.
        path: PathBuf,
        /// What is wrong and what to do.
        detail: String,
    },

    /// The operating system refused a file operation.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried, as in `cannot write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },

    /// The loss or a gradient is infinite or not a number.
    #[error(
        "{what} is not finite at step {step} (records {records:?}); the weights of that step were not changed: lower the learning rate or look at these records"
    )]
    NonFinite {
        /// The quantity: `loss` or `gradient norm`.
        what: &'static str,
        /// The optimiser step, counted from 1.
        step: u64,
        /// Line numbers of the records in that step's batch.
        records: Vec<usize>,
    },
}

impl Error {
    pub(crate) fn shape(op: &'static str, detail: impl Into<String>) -> Self {
        Self::Shape {
            op,
            detail: detail.into(),
        }
    }
}
