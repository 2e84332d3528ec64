// What policy losses read and write for each target.
struct RowList {
    id: u32,
    start: u32,
    end: u32,
    pad: u32,
}

struct TokenLogprob {
    logprob: f32,
    entropy: f32,
    lse: f32,
    pad: u32,
}

struct TokenGradient {
    dlogprob: f32,
    dentropy: f32,
}

struct Experience {
    logprob: f32,
    ref_logprob: f32,
    value: f32,
    advantage: f32,
    returns: f32,
    weight: f32,
    pad0: u32,
    pad1: u32,
}
