// A sequence that is being generated: where its keys and values lie in the cache, and how far it
// is. Its keys are numbered j = 0, 1, ...: first the rows of its prompt, then its own.
struct Sequence {
    prefix_start: u32,
    prefix_len: u32,
    start: u32,
    // Tokens drawn so far, and so, where the last of them is being worked on, rows of its own.
    len: u32,
    // 0: running, 1: drew a stop token, 2: reached the limit.
    finished: u32,
    id_low: u32,
    id_high: u32,
    pad: u32,
}

// A row to be copied.
struct RowCopy {
    source: u32,
    destination: u32,
}
