// What is done to whole planes of x: [batch, channels, positions]. A plane is the work of `lanes` threads.

// y = x + bias of its channel.
KERNEL add_bias(IN(element) x, IN(float) bias, OUT(element) y, int planes, int channels, int positions, int lanes) {
    long long plane = run_of_thread(lanes);
    if (plane >= planes) {
        return;
    }
    float shift = bias[plane % channels];
    UNROLLED
    for (int j = threadIdx.x % lanes; j < positions; j += lanes) {
        y[plane * positions + j] = store(load(x[plane * positions + j]) + shift);
    }
}

// The sum of the plane that this thread works on.
DEVICE double sum_of_plane(const element *x, int planes, int positions, int lanes) {
    long long plane = run_of_thread(lanes);
    double own = 0.0;
    UNROLLED
    for (int j = threadIdx.x % lanes; plane < planes && j < positions; j += lanes) {
        own += load(x[plane * positions + j]);
    }
    return sum_over(own, lanes);
}

// The sum of each plane, in f32.
KERNEL plane_sums(IN(element) x, OUT(float) sums, int planes, int positions, int lanes) {
    double sum = sum_of_plane(x, planes, positions, lanes);
    if (run_of_thread(lanes) < planes && threadIdx.x % lanes == 0) {
        sums[run_of_thread(lanes)] = (float)sum;
    }
}

// The mean of each plane.
KERNEL plane_means(IN(element) x, OUT(element) means, int planes, int positions, int lanes) {
    double sum = sum_of_plane(x, planes, positions, lanes);
    if (run_of_thread(lanes) < planes && threadIdx.x % lanes == 0) {
        means[run_of_thread(lanes)] = store((float)(sum / positions));
    }
}

// y = skip + scale * sigmoid(logits) * x, with one logit for each plane; without `skip` nothing is added.
KERNEL gated(
    IN(element) skip, IN(element) x, IN(element) logits, OUT(element) y, int planes, int positions, int lanes,
    float scale) {
    long long plane = run_of_thread(lanes);
    if (plane >= planes) {
        return;
    }
    float gate = scale * sigmoid(load(logits[plane]));
    UNROLLED
    for (int j = threadIdx.x % lanes; j < positions; j += lanes) {
        long long i = plane * positions + j;
        y[i] = store((skip ? load(skip[i]) : 0.0f) + gate * load(x[i]));
    }
}

// The gradients of x and of the logits, given that of y.
KERNEL gated_gradients(
    IN(element) x, IN(element) logits, IN(element) gy, OUT(element) dx, OUT(element) dlogits, int planes, int positions,
    int lanes, float scale) {
    long long plane = run_of_thread(lanes);
    bool exists = plane < planes;
    float gate = exists ? sigmoid(load(logits[plane])) : 0.0f;
    double own = 0.0;
    UNROLLED
    for (int j = threadIdx.x % lanes; exists && j < positions; j += lanes) {
        long long i = plane * positions + j;
        float g = load(gy[i]);
        dx[i] = store(scale * gate * g);
        own += (double)g * load(x[i]);
    }
    own = sum_over(own, lanes);
    if (exists && threadIdx.x % lanes == 0) {
        dlogits[plane] = store(scale * gate * (1.0f - gate) * (float)own);
    }
}

// y = x + sin(alpha * x)^2 / alpha, with the alpha of its channel.
KERNEL snake(IN(element) x, IN(float) alpha, OUT(element) y, int planes, int channels, int positions, int lanes) {
    long long plane = run_of_thread(lanes);
    if (plane >= planes) {
        return;
    }
    float a = alpha[plane % channels];
    UNROLLED
    for (int j = threadIdx.x % lanes; j < positions; j += lanes) {
        float value = load(x[plane * positions + j]), wave = sinf(a * value);
        y[plane * positions + j] = store(value + wave * wave / a);
    }
}

// The gradient of x, given that of y, and what each plane adds to that of its alpha.
KERNEL snake_gradients(
    IN(element) x, IN(float) alpha, IN(element) gy, OUT(element) dx, OUT(float) dalpha, int planes, int channels,
    int positions, int lanes) {
    long long plane = run_of_thread(lanes);
    bool exists = plane < planes;
    float a = exists ? alpha[plane % channels] : 1.0f;
    double own = 0.0;
    UNROLLED
    for (int j = threadIdx.x % lanes; exists && j < positions; j += lanes) {
        long long i = plane * positions + j;
        float value = load(x[i]), g = load(gy[i]), wave = sinf(a * value), slope = sinf(2.0f * a * value);
        dx[i] = store(g * (1.0f + slope));
        own += (double)g * (value * slope - wave * wave / a) / a;
    }
    own = sum_over(own, lanes);
    if (exists && threadIdx.x % lanes == 0) {
        dalpha[plane] = (float)own;
    }
}
