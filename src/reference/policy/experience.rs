//! What is summed over the tokens of a response.

/// A token of a response.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Token {
    /// Under the policy that sampled.
    pub logprob: f64,
    /// Under the reference.
    pub ref_logprob: f64,
    /// The value model's estimate before the token.
    pub value: f64,
    /// 0 for what is not a real token.
    pub weight: f64,
}

/// `Σ (logprob - ref_logprob)` over real tokens.
pub fn kl(tokens: &[Token]) -> f64 {
    real(tokens).map(|t| t.logprob - t.ref_logprob).sum()
}

/// `-Σ logprob` over real tokens.
pub fn surprisal(tokens: &[Token]) -> f64 {
    real(tokens).map(|t| -t.logprob).sum()
}

fn real(tokens: &[Token]) -> impl Iterator<Item = &Token> {
    tokens.iter().filter(|token| token.weight != 0.0)
}
