//! Generation with a cache: against the full forward pass, against transformers, and against itself
//! in other company.

use prefgrad::kernels::nn::attention::Heads;
