// GELU of one column.
fn gelu_columns(x: f32) -> f32 {
    return gelu(x);
}

fn gelu_derivative_columns(x: f32) -> f32 {
    return gelu_derivative(x);
}
