// GELU of four columns.
fn gelu_columns(x: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(gelu(x.x), gelu(x.y), gelu(x.z), gelu(x.w));
}

fn gelu_derivative_columns(x: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(
        gelu_derivative(x.x), gelu_derivative(x.y), gelu_derivative(x.z), gelu_derivative(x.w),
    );
}
