// Sizes are the batch's own, read from its `Counts` (16 words, written by the host): a plan is
// built for a capacity and replayed for whatever fits. FIXED marks a size that never changes.
const FIXED: u32 = 0xffffffffu;

@group(0) @binding(1) var<uniform> counts: array<vec4<u32>, 4>;

fn live(capacity: u32, field: u32) -> u32 {
    if (field == FIXED) {
        return capacity;
    }
    return min(capacity, counts[field / 4u][field % 4u]);
}

// The live size of the part of a list that begins at `start`.
fn live_from(capacity: u32, field: u32, start: u32) -> u32 {
    if (field == FIXED) {
        return capacity;
    }
    let all = counts[field / 4u][field % 4u];
    return min(capacity, all - min(start, all));
}

// The row of the metrics ring that this batch writes.
fn metrics_slot() -> u32 {
    return counts[2].z;
}

// Factor of every pair's loss and gradient; `fixed` is for plans without counts.
fn pair_scale(fixed: f32) -> f32 {
    return bitcast<f32>(counts[2].w);
}

// The same for every target.
fn target_scale(fixed: f32) -> f32 {
    return bitcast<f32>(counts[3].x);
}
