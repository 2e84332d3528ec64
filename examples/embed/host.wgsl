// The host application's own kernels: a linear reward model of FEATURES features.
const FEATURES: u32 = 4u;
const LEARNING_RATE: f32 = 0.5;

@group(0) @binding(0) var<storage, read_write> weights: array<f32, FEATURES>;
@group(0) @binding(1) var<storage, read> features: array<f32>;
@group(0) @binding(2) var<storage, read_write> rewards: array<f32>;
@group(0) @binding(3) var<storage, read_write> drewards: array<f32>;

// rewards[a] = features[a] . weights, a thread an answer.
@compute @workgroup_size(64)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let answer = id.x;
    if (answer >= arrayLength(&rewards)) {
        return;
    }
    var sum = 0.0;
    for (var i = 0u; i < FEATURES; i += 1u) {
        sum += features[answer * FEATURES + i] * weights[i];
    }
    rewards[answer] = sum;
}

// weights -= learning rate * sum of drewards[a] features[a], a thread a feature.
@compute @workgroup_size(FEATURES)
fn update(@builtin(local_invocation_index) feature: u32) {
    var gradient = 0.0;
    for (var a = 0u; a < arrayLength(&drewards); a += 1u) {
        gradient += drewards[a] * features[a * FEATURES + feature];
    }
    weights[feature] -= LEARNING_RATE * gradient;
}
