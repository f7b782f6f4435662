// The second object: virtual functions, templates, initialisers that call others.

extern "C" void host_report(const char *name, int value);
extern "C" int host_add(int a, int b);
extern "C" int counter;

// As in the other file.
#if defined(__thumb__)
#define OTHER_STATE __attribute__((target("arm")))
#elif defined(__arm__)
#define OTHER_STATE __attribute__((target("thumb")))
#else
#define OTHER_STATE
#endif

namespace {

struct Shape {
    virtual int area() const = 0;
    virtual int sides() const { return 0; }
};

struct Square : Shape {
    int side;
    explicit Square(int side) : side(side) {}
    int area() const override { return side * side; }
    int sides() const override { return 4; }
};

struct Circle : Shape {
    int radius;
    explicit Circle(int radius) : radius(radius) {}
    int area() const override { return static_cast<int>(3.14159 * radius * radius); }
};

} // namespace

template <int N> struct Table {
    static int values[N];
    static int sum() {
        int sum = 0;
        for (int value : values) { sum = sum * 3 + value; }
        return sum;
    }
};
template <int N> int Table<N>::values[N] = {N, N + 1};

inline int counted() {
    static int count = 4;
    return ++count;
}

Square square(host_add(2, 3)); // made by an initialiser
Circle circle(counter);
const Shape *shapes[] = {&square, &circle};

#ifdef NO_THREADS
extern "C" int more_thread;
int more_thread = 7;
#else
extern "C" __thread int more_thread;
__thread int more_thread = 7;
#endif

extern "C" int more_data[4] = {1, 2, 3, 4};

extern "C" OTHER_STATE __attribute__((noinline)) int more(int n) { return more_data[n & 3] + Table<4>::sum() + n; }

extern "C" void more_reports() {
    for (const Shape *shape : shapes) { host_report("shape", shape->area() * 10 + shape->sides()); }
    host_report("template", Table<2>::sum() + Table<5>::sum());
    host_report("counted", counted() + counted());
}
