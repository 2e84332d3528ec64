//! Cases of the kernels in `shaders/nn`.

pub mod attention;
mod attention_decode;
mod bias_gradient;
mod copy_rows;
mod cross_entropy;
mod embedding;
mod gelu;
mod layer_norm;
mod matmul;
mod norm;
mod qk_norm;
mod rms_norm;
mod rope;
mod swiglu;

use super::Case;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = matmul::cases();
    cases.extend(attention::cases());
    cases.extend(attention_decode::cases());
    cases.extend(copy_rows::cases());
    cases.extend(layer_norm::cases());
    cases.extend(rms_norm::cases());
    cases.extend(qk_norm::cases());
    cases.extend(gelu::cases());
    cases.extend(swiglu::cases());
    cases.extend(rope::cases());
    cases.extend(embedding::cases());
    cases.extend(bias_gradient::cases());
    cases.extend(cross_entropy::cases());
    cases
}
