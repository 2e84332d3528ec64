// Counter-based random numbers: each is a function of a key and a counter alone, so that neither
// the order of threads nor the company of a sequence changes it.
//
// Philox4x32-10: Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3",
// SC'11, section 3.3 and table 2.
const PHILOX_M0: u32 = 0xd2511f53u;
const PHILOX_M1: u32 = 0xcd9e8d57u;
const PHILOX_W0: u32 = 0x9e3779b9u;
const PHILOX_W1: u32 = 0xbb67ae85u;

// The upper half of the product of two numbers of 32 bits, in halves of 16 bits.
fn multiply_high(a: u32, b: u32) -> u32 {
    let a0 = a & 0xffffu;
    let a1 = a >> 16u;
    let b0 = b & 0xffffu;
    let b1 = b >> 16u;
    let middle = a1 * b0 + ((a0 * b0) >> 16u);
    let other = a0 * b1 + (middle & 0xffffu);
    return a1 * b1 + (middle >> 16u) + (other >> 16u);
}

fn philox(counter: vec4<u32>, key: vec2<u32>) -> vec4<u32> {
    var x = counter;
    var k = key;
    for (var round = 0u; round < 10u; round++) {
        let high0 = multiply_high(PHILOX_M0, x.x);
        let high1 = multiply_high(PHILOX_M1, x.z);
        x = vec4<u32>(
            high1 ^ x.y ^ k.x, PHILOX_M1 * x.z, high0 ^ x.w ^ k.y, PHILOX_M0 * x.x,
        );
        k += vec2<u32>(PHILOX_W0, PHILOX_W1);
    }
    return x;
}

// Uniform in [0, 1): a multiple of 2^-24.
fn unit(bits: u32) -> f32 {
    return f32(bits >> 8u) * 5.9604644775390625e-8;
}
