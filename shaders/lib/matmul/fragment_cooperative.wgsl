// 16 x 16 fragments of the operands, in f16, and of the result, in f32, held by a subgroup together.
alias HalfFour = vec4<f16>;
alias FragmentA = coop_mat16x16<f16, A>;
alias FragmentB = coop_mat16x16<f16, B>;
alias FragmentC = coop_mat16x16<f32, C>;

fn halves(values: vec4<f32>) -> HalfFour {
    return vec4<f16>(values);
}

// Rows of op(A) by steps of k, from the group `at` of `tile_a` on.
fn fragment_a(at: u32) -> FragmentA {
    var fragment: FragmentA;
    if (ALONG_K_A) {
        fragment = coopLoadT<coop_mat16x16<f16, A>>(&tile_a[at], STRIDE_A);
    } else {
        fragment = coopLoad<coop_mat16x16<f16, A>>(&tile_a[at], STRIDE_A);
    }
    return fragment;
}

// Steps of k by columns of op(B), likewise.
fn fragment_b(at: u32) -> FragmentB {
    var fragment: FragmentB;
    if (ALONG_K_B) {
        fragment = coopLoad<coop_mat16x16<f16, B>>(&tile_b[at], STRIDE_B);
    } else {
        fragment = coopLoadT<coop_mat16x16<f16, B>>(&tile_b[at], STRIDE_B);
    }
    return fragment;
}

fn multiply_add(a_part: FragmentA, b_part: FragmentB, sum: FragmentC) -> FragmentC {
    return coopMultiplyAdd(a_part, b_part, sum);
}

// Row by row, from the group `at` of `tile_c` on. naga 30 wants names for all that is stored.
fn put_fragment(sum: FragmentC, at: u32) {
    let to = &tile_c[at];
    let stride = STRIDE_C;
    coopStoreT(sum, to, stride);
}
