// Convolutions with one filter for each channel: x: [batch, channels, height, width], w: [channels, kernel rows, kernel
// columns], y: [batch, channels, output rows, output columns].

struct Window {
    int channels, height, width, rows, columns, out_height, out_width;
    int row_stride, column_stride, row_padding, column_padding, row_dilation, column_dilation;
};

#define WINDOW                                                                                                             \
    int channels, int height, int width, int rows, int columns, int out_height, int out_width, int row_stride,            \
        int column_stride, int row_padding, int column_padding, int row_dilation, int column_dilation

#define GATHER                                                                                                             \
    Window g = {channels,      height,        width,       rows,           columns,      out_height,     out_width,       \
                row_stride,    column_stride, row_padding, column_padding, row_dilation, column_dilation}

KERNEL depthwise(const element *x, const element *w, element *y, long long n, WINDOW) {
    GATHER;
    long long i = element_of_thread();
    if (i >= n) {
        return;
    }
    int column = (int)(i % g.out_width), row = (int)(i / g.out_width % g.out_height);
    long long plane = i / g.out_width / g.out_height;
    const element *from = x + plane * g.height * g.width;
    const element *filter = w + plane % g.channels * g.rows * g.columns;
    float sum = 0.0f;
    for (int u = 0; u < g.rows; u++) {
        int r = row * g.row_stride + u * g.row_dilation - g.row_padding;
        for (int v = 0; v < g.columns; v++) {
            int c = column * g.column_stride + v * g.column_dilation - g.column_padding;
            if (r >= 0 && r < g.height && c >= 0 && c < g.width) {
                sum += load(from[(long long)r * g.width + c]) * load(filter[u * g.columns + v]);
            }
        }
    }
    y[i] = store(sum);
}

// The gradient of x, given that of y; also the transposed convolution of y.
KERNEL depthwise_data_gradient(const element *gy, const element *w, element *dx, long long n, WINDOW) {
    GATHER;
    long long i = element_of_thread();
    if (i >= n) {
        return;
    }
    int column = (int)(i % g.width), row = (int)(i / g.width % g.height);
    long long plane = i / g.width / g.height;
    const element *from = gy + plane * g.out_height * g.out_width;
    const element *filter = w + plane % g.channels * g.rows * g.columns;
    float sum = 0.0f;
    for (int u = 0; u < g.rows; u++) {
        int r = row + g.row_padding - u * g.row_dilation;
        if (r < 0 || r % g.row_stride != 0 || r / g.row_stride >= g.out_height) {
            continue;
        }
        for (int v = 0; v < g.columns; v++) {
            int c = column + g.column_padding - v * g.column_dilation;
            if (c >= 0 && c % g.column_stride == 0 && c / g.column_stride < g.out_width) {
                long long at = (long long)(r / g.row_stride) * g.out_width + c / g.column_stride;
                sum += load(from[at]) * load(filter[u * g.columns + v]);
            }
        }
    }
    dx[i] = store(sum);
}

// The gradient of w, given that of y: a block for each element of a filter.
KERNEL depthwise_weight_gradient(const element *x, const element *gy, element *dw, int batch, WINDOW) {
    GATHER;
    int tap = (int)(blockIdx.x % (g.rows * g.columns)), channel = (int)(blockIdx.x / (g.rows * g.columns));
    int u = tap / g.columns, v = tap % g.columns;
    long long positions = (long long)g.out_height * g.out_width;
    double own = 0.0;
    for (long long j = threadIdx.x; j < batch * positions; j += THREADS) {
        long long plane = j / positions * g.channels + channel;
        int row = (int)(j % positions / g.out_width), column = (int)(j % g.out_width);
        int r = row * g.row_stride + u * g.row_dilation - g.row_padding;
        int c = column * g.column_stride + v * g.column_dilation - g.column_padding;
        if (r >= 0 && r < g.height && c >= 0 && c < g.width) {
            own += (double)load(gy[plane * positions + j % positions]) *
                   load(x[(plane * g.height + r) * g.width + c]);
        }
    }
    own = sum_over(own, THREADS);
    if (threadIdx.x == 0) {
        dw[blockIdx.x] = store((float)own);
    }
}
