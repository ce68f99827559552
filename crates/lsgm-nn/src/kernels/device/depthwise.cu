// Convolutions with one filter for each channel: x: [batch, channels, height, width], w: [channels, kernel rows, kernel
// columns], y: [batch, channels, output rows, output columns].

struct Window {
    int channels, height, width, rows, columns, out_height, out_width;
    int row_stride, column_stride, row_padding, column_padding, row_dilation, column_dilation;
};

#define WINDOW \
    int channels, int height, int width, int rows, int columns, int out_height, int out_width, int row_stride, \
        int column_stride, int row_padding, int column_padding, int row_dilation, int column_dilation

#define GATHER \
    Window g = {channels,      height,        width,       rows,           columns,      out_height,     out_width, \
                row_stride,    column_stride, row_padding, column_padding, row_dilation, column_dilation}

KERNEL depthwise(IN(element) x, IN(element) w, OUT(element) y, int n, WINDOW) {
    GATHER;
    if (element_of_thread() >= n) {
        return;
    }
    int i = (int)element_of_thread();
    int column = i % g.out_width, row = i / g.out_width % g.out_height;
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

// `place` over `stride`, or -1 where that is no place.
DEVICE int over(int place, int stride) {
    if (stride == 1 || place < 0) {
        return place;
    }
    return place % stride == 0 ? place / stride : -1;
}

// The gradient of x, given that of y; also the transposed convolution of y.
KERNEL depthwise_data_gradient(IN(element) gy, IN(element) w, OUT(element) dx, int n, WINDOW) {
    GATHER;
    if (element_of_thread() >= n) {
        return;
    }
    int i = (int)element_of_thread();
    int column = i % g.width, row = i / g.width % g.height;
    long long plane = i / g.width / g.height;
    const element *from = gy + plane * g.out_height * g.out_width;
    const element *filter = w + plane % g.channels * g.rows * g.columns;
    float sum = 0.0f;
    for (int u = 0; u < g.rows; u++) {
        int r = row + g.row_padding - u * g.row_dilation;
        int out_row = over(r, g.row_stride);
        if (out_row < 0 || out_row >= g.out_height) {
            continue;
        }
        for (int v = 0; v < g.columns; v++) {
            int c = column + g.column_padding - v * g.column_dilation;
            int out_column = over(c, g.column_stride);
            if (out_column >= 0 && out_column < g.out_width) {
                sum += load(from[(long long)out_row * g.out_width + out_column]) * load(filter[u * g.columns + v]);
            }
        }
    }
    dx[i] = store(sum);
}

// The gradient of w, given that of y: a block for each element of a filter. `lanes` of its threads take the positions
// of one item.
KERNEL depthwise_weight_gradient(IN(element) x, IN(element) gy, OUT(element) dw, int batch, int lanes, WINDOW) {
    GATHER;
    int tap = (int)(blockIdx.x % (g.rows * g.columns)), channel = (int)(blockIdx.x / (g.rows * g.columns));
    int u = tap / g.columns, v = tap % g.columns;
    int positions = g.out_height * g.out_width;
    double own = 0.0;
    for (int j = threadIdx.x % lanes; j < positions; j += lanes) {
        int r = j / g.out_width * g.row_stride + u * g.row_dilation - g.row_padding;
        int c = j % g.out_width * g.column_stride + v * g.column_dilation - g.column_padding;
        bool inside = r >= 0 && r < g.height && c >= 0 && c < g.width;
        for (int item = threadIdx.x / lanes; inside && item < batch; item += THREADS / lanes) {
            long long plane = (long long)item * g.channels + channel;
            own += load(gy[plane * positions + j]) * load(x[(plane * g.height + r) * g.width + c]);
        }
    }
    own = sum_over(own, THREADS);
    if (threadIdx.x == 0) {
        dw[blockIdx.x] = store((float)own);
    }
}
