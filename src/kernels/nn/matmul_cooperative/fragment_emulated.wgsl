// Fragments by plain code, for tests on devices without cooperative matrices: 32 threads in a row are
// a subgroup. A fragment of an operand is where it begins in workgroup memory; one of the result is
// half a row a thread.
alias HalfFour = vec4<f32>;
alias FragmentA = u32;
alias FragmentB = u32;
alias FragmentC = array<f32, 8>;

var<private> lane: u32;

fn halves(values: vec4<f32>) -> HalfFour {
    return quantizeToF16(values);
}

fn fragment_a(at: u32) -> FragmentA {
    return at;
}

fn fragment_b(at: u32) -> FragmentB {
    return at;
}

fn element_a(part: FragmentA, row: u32, step: u32) -> f32 {
    if (ALONG_K_A) {
        return tile_a[part + row * STRIDE_A + step / 4u][step % 4u];
    }
    return tile_a[part + step * STRIDE_A + row / 4u][row % 4u];
}

fn element_b(part: FragmentB, step: u32, col: u32) -> f32 {
    if (ALONG_K_B) {
        return tile_b[part + col * STRIDE_B + step / 4u][step % 4u];
    }
    return tile_b[part + step * STRIDE_B + col / 4u][col % 4u];
}

fn multiply_add(a_part: FragmentA, b_part: FragmentB, sum: FragmentC) -> FragmentC {
    var total = sum;
    for (var step = 0u; step < 16u; step += 1u) {
        let left = element_a(a_part, lane / 2u, step);
        for (var i = 0u; i < 8u; i += 1u) {
            total[i] += left * element_b(b_part, step, lane % 2u * 8u + i);
        }
    }
    return total;
}

fn put_fragment(sum: FragmentC, at: u32) {
    let to = at + lane / 2u * STRIDE_C + lane % 2u * 2u;
    tile_c[to] = vec4<f32>(sum[0], sum[1], sum[2], sum[3]);
    tile_c[to + 1u] = vec4<f32>(sum[4], sum[5], sum[6], sum[7]);
}
