// What the first eight lanes of a subgroup hold, spread to all lanes. All eight must be active.
fn broadcast_low(own: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(
        subgroupBroadcast(own, 0u), subgroupBroadcast(own, 1u),
        subgroupBroadcast(own, 2u), subgroupBroadcast(own, 3u),
    );
}

fn broadcast_high(own: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(
        subgroupBroadcast(own, 4u), subgroupBroadcast(own, 5u),
        subgroupBroadcast(own, 6u), subgroupBroadcast(own, 7u),
    );
}

fn broadcast_eight(own: f32) -> array<vec4<f32>, 2> {
    return array<vec4<f32>, 2>(
        vec4<f32>(
            subgroupBroadcast(own, 0u), subgroupBroadcast(own, 1u),
            subgroupBroadcast(own, 2u), subgroupBroadcast(own, 3u),
        ),
        vec4<f32>(
            subgroupBroadcast(own, 4u), subgroupBroadcast(own, 5u),
            subgroupBroadcast(own, 6u), subgroupBroadcast(own, 7u),
        ),
    );
}
