// What is done to whole planes of x: [batch, channels, positions]. A plane is the work of `lanes` threads.

// y = x + bias of its channel.
KERNEL add_bias(IN(element) x, IN(float) bias, OUT(element) y, int planes, int channels, int positions, int lanes) {
    int plane = run_of_thread(lanes);
    if (plane >= planes) {
        return;
    }
    float shift = bias[plane % channels];
    long long start = (long long)plane * positions;
    auto read = [&](int j) { return load(x[start + j]); };
    in_turns<float>(lanes, positions, read, [&](int j, float value) { y[start + j] = store(value + shift); });
}

// The sum of the plane that this thread works on.
DEVICE double sum_of_plane(const element *x, int planes, int positions, int lanes) {
    int plane = run_of_thread(lanes);
    const element *at = x + (long long)plane * positions;
    double own = 0.0;
    auto read = [&](int j) { return load(at[j]); };
    in_turns<float>(lanes, plane < planes ? positions : 0, read, [&](int, float value) { own += value; });
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
    int plane = run_of_thread(lanes);
    if (plane >= planes) {
        return;
    }
    float gate = scale * sigmoid(load(logits[plane]));
    long long start = (long long)plane * positions;
    auto read = [&](int j) { return Pair{skip ? load(skip[start + j]) : 0.0f, load(x[start + j])}; };
    in_turns<Pair>(lanes, positions, read, [&](int j, Pair value) { y[start + j] = store(value.a + gate * value.b); });
}

// The gradients of x and of the logits, given that of y.
KERNEL gated_gradients(
    IN(element) x, IN(element) logits, IN(element) gy, OUT(element) dx, OUT(element) dlogits, int planes, int positions,
    int lanes, float scale) {
    int plane = run_of_thread(lanes), end = plane < planes ? positions : 0;
    float gate = end ? sigmoid(load(logits[plane])) : 0.0f;
    long long start = (long long)plane * positions;
    double own = 0.0;
    auto read = [&](int j) { return Pair{load(x[start + j]), load(gy[start + j])}; };
    in_turns<Pair>(lanes, end, read, [&](int j, Pair value) {
        dx[start + j] = store(scale * gate * value.b);
        own += (double)value.b * value.a;
    });
    own = sum_over(own, lanes);
    if (end > 0 && threadIdx.x % lanes == 0) {
        dlogits[plane] = store(scale * gate * (1.0f - gate) * (float)own);
    }
}

// y = x + sin(alpha * x)^2 / alpha, with the alpha of its channel.
KERNEL snake(IN(element) x, IN(float) alpha, OUT(element) y, int planes, int channels, int positions, int lanes) {
    int plane = run_of_thread(lanes);
    if (plane >= planes) {
        return;
    }
    float a = alpha[plane % channels];
    long long start = (long long)plane * positions;
    auto read = [&](int j) { return load(x[start + j]); };
    in_turns<float>(lanes, positions, read, [&](int j, float value) {
        float wave = sinf(a * value);
        y[start + j] = store(value + wave * wave / a);
    });
}

// The gradient of x, given that of y, and what each plane adds to that of its alpha.
KERNEL snake_gradients(
    IN(element) x, IN(float) alpha, IN(element) gy, OUT(element) dx, OUT(float) dalpha, int planes, int channels,
    int positions, int lanes) {
    int plane = run_of_thread(lanes), end = plane < planes ? positions : 0;
    float a = end ? alpha[plane % channels] : 1.0f;
    long long start = (long long)plane * positions;
    double own = 0.0;
    auto read = [&](int j) { return Pair{load(x[start + j]), load(gy[start + j])}; };
    in_turns<Pair>(lanes, end, read, [&](int j, Pair value) {
        float wave = sinf(a * value.a), slope = sinf(2.0f * a * value.a);
        dx[start + j] = store(value.b * (1.0f + slope));
        own += (double)value.b * (value.a * slope - wave * wave / a) / a;
    });
    own = sum_over(own, lanes);
    if (end > 0 && threadIdx.x % lanes == 0) {
        dalpha[plane] = (float)own;
    }
}
