// Functions of single elements, numbered as `Function` of the host is.

#define RELU 0
#define SILU 1
#define GELU 2
#define ELU 3
#define SOFTPLUS 4
#define SIGMOID 5

DEVICE float value(int function, float x) {
    switch (function) {
    case RELU:
        return x <= 0.0f ? 0.0f : x;
    case SILU:
        return x * sigmoid(x);
    case GELU:
        return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
    case ELU:
        return x > 0.0f ? x : expm1f(x);
    case SOFTPLUS:
        return fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x)));
    default:
        return sigmoid(x);
    }
}

DEVICE float slope(int function, float x) {
    switch (function) {
    case RELU:
        return x > 0.0f ? 1.0f : 0.0f;
    case SILU:
        return slope_of_silu(x);
    case GELU:
        return 0.5f * (1.0f + erff(x * 0.70710678118654752f)) + x * 0.39894228040143268f * expf(-0.5f * x * x);
    case ELU:
        return x > 0.0f ? 1.0f : expf(x);
    case SOFTPLUS:
        return sigmoid(x);
    default: {
        float y = sigmoid(x);
        return y * (1.0f - y);
    }
    }
}

KERNEL apply(const element *x, element *y, long long n, int function) {
    long long i = element_of_thread();
    if (i < n) {
        y[i] = store(value(function, load(x[i])));
    }
}

KERNEL apply_gradient(const element *x, const element *gy, element *dx, long long n, int function) {
    long long i = element_of_thread();
    if (i < n) {
        dx[i] = store(load(gy[i]) * slope(function, load(x[i])));
    }
}
