// What the backward pass of attention needs beyond attention_tiled.wgsl: a second factor of the own
// rows, for the gradients of the weights.
var<workgroup> own_second: Own;

// The products of the group's four rows of the second factor and the lane's two of the block.
fn second_products(group: u32, lane: u32) -> array<vec4<f32>, 2> {
    let row = group * 4u;
    let other = lane + LANES;
    var a = vec4<f32>(0.0);
    var b = vec4<f32>(0.0);
    for (var first = 0u; first < WIDTH4; first += STEP) {
        // unroll
        for (var i = 0u; i < STEP; i += 1u) {
            let d = first + i;
            let rows = mat4x4<f32>(
                own_second[row][d], own_second[row + 1u][d],
                own_second[row + 2u][d], own_second[row + 3u][d],
            );
            a = dots(a, block[lane / RUN][lane % RUN][d], rows);
            b = dots(b, block[other / RUN][other % RUN][d], rows);
        }
    }
    return array<vec4<f32>, 2>(a, b);
}
