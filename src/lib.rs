//! Hand-written WGSL compute kernels that learn from human preferences, reward models and the
//! policies that follow them, on any GPU that Vulkan, Metal, DX12 or WebGPU reaches.
//!
//! Ways in:
//!
//! - train a reward model: [`train::RewardTrainer`] on records from [`data`];
//! - score answers with one: [`model::RewardModel`];
//! - train a policy: [`train::SftTrainer`] and [`train::DpoTrainer`] on records,
//!   [`train::PpoTrainer`] and [`train::GrpoTrainer`] on its own samples, judged by a
//!   [`train::Reward`];
//! - let it write: [`model::Generator`]; ask how likely it finds an answer:
//!   [`train::AnswerLogprobs`];
//! - record single kernels into a compute pass of your own: [`kernels`] on a [`Gpu`] made from
//!   your device, as here.
//!
//! ```
//! use prefgrad::data::Pair;
//! use prefgrad::kernels::preference::pairwise_loss::{
//!     PairwiseLossIo, PairwiseLossOptions, pairwise_loss,
//! };
//! use prefgrad::{Gpu, Plan, Tensor};
//!
//! # fn main() -> prefgrad::Result<()> {
//! # let Ok(gpu) = Gpu::new() else { return Ok(()) };
//! // One pair: the chosen answer's reward, then the rejected one's.
//! let rewards = Tensor::from_slice(&gpu, "rewards", &[2], &[0.5f32, -0.5])?;
//! let pairs = Tensor::from_slice(&gpu, "pairs", &[1], &[Pair { weight: 1.0, margin: 0.0 }])?;
//! let losses = Tensor::zeros::<f32>(&gpu, "losses", &[1])?;
//! let drewards = Tensor::zeros::<f32>(&gpu, "d rewards", &[2])?;
//! let mut plan = Plan::new(&gpu);
//! let io = PairwiseLossIo {
//!     rewards: &rewards,
//!     pairs: &pairs,
//!     losses: &losses,
//!     drewards: &drewards,
//!     counts: None,
//! };
//! pairwise_loss(&mut plan, &io, &PairwiseLossOptions::default())?;
//! plan.submit(); // or `plan.encode(&mut pass)?` in a pass of your own
//! let loss = losses.read::<f32>(&gpu)?[0];
//! assert!((loss - (1.0f32 + (-1.0f32).exp()).ln()).abs() < 1e-6);
//! # Ok(())
//! # }
//! ```

#[cfg(not(target_arch = "wasm32"))]
pub mod check;
pub mod data;
mod error;
mod files;
mod gpu;
pub mod kernels;
pub mod model;
pub mod reference;
#[cfg(not(target_arch = "wasm32"))]
pub mod train;

pub use error::{Error, Result};
pub use gpu::*;
