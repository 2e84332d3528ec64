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
