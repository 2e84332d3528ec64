// Sizes are what the plan was built for.
fn live(capacity: u32, field: u32) -> u32 {
    return capacity;
}

fn live_from(capacity: u32, field: u32, start: u32) -> u32 {
    return capacity;
}

fn metrics_slot() -> u32 {
    return 0u;
}

fn pair_scale(fixed: f32) -> f32 {
    return fixed;
}

fn target_scale(fixed: f32) -> f32 {
    return fixed;
}
