// 4 x 4 blocks of the operands.
//
// Four rows of op(A), four long in k: the matrix's columns are those rows. With a block of op(B),
// whose columns run along n, `b * a` is the 4 x 4 product, its columns the rows of C.
fn a_block(row: u32, k: u32) -> mat4x4<f32> {
    if (TRANSPOSE_A) {
        return transpose(mat4x4<f32>(
            load_a(k, row), load_a(k + 1u, row), load_a(k + 2u, row), load_a(k + 3u, row),
        ));
    }
    return mat4x4<f32>(
        load_a(row, k), load_a(row + 1u, k), load_a(row + 2u, k), load_a(row + 3u, k),
    );
}

fn b_block(k: u32, col: u32) -> mat4x4<f32> {
    if (TRANSPOSE_B) {
        return transpose(mat4x4<f32>(
            load_b(col, k), load_b(col + 1u, k), load_b(col + 2u, k), load_b(col + 3u, k),
        ));
    }
    return mat4x4<f32>(
        load_b(k, col), load_b(k + 1u, col), load_b(k + 2u, col), load_b(k + 3u, col),
    );
}

// The last, partial step along k: what lies past k may be anything, infinity included, so it is
// replaced and not multiplied by zero.
fn mask_a(block: mat4x4<f32>, rest: u32) -> mat4x4<f32> {
    let keep = vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(rest);
    let zero = vec4<f32>(0.0);
    return mat4x4<f32>(
        select(zero, block[0], keep), select(zero, block[1], keep),
        select(zero, block[2], keep), select(zero, block[3], keep),
    );
}

fn mask_b(block: mat4x4<f32>, rest: u32) -> mat4x4<f32> {
    let zero = vec4<f32>(0.0);
    return mat4x4<f32>(
        block[0], select(zero, block[1], rest > 1u),
        select(zero, block[2], rest > 2u), zero,
    );
}
