// How kernels number their workgroups: the host spreads them over x, y and z where there are more
// than one dimension takes.
fn linear_workgroup(id: vec3<u32>, count: vec3<u32>) -> u32 {
    return id.x + count.x * (id.y + count.y * id.z);
}
