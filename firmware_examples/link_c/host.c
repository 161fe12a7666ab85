/* Runs the link on a computer, for tests.
 *
 *   host size                 the bytes of RAM of one link
 *   host play                 plays docs/link_vectors.json: "ms received sent" lines in, what left it out
 *   host echo DEVICE BAUD     opens a port and sends back whatever comes, until the stream ends
 */
#define _DEFAULT_SOURCE
#include "link.h"
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static struct link l;
static uint8_t out[LINK_FRAME + 16];
static size_t out_length;

static void collect(void *user, uint8_t byte) {
    (void)user;
    if (out_length < sizeof out)
        out[out_length++] = byte;
}

static uint32_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint32_t)t.tv_sec * 1000u + (uint32_t)(t.tv_nsec / 1000000);
}

static size_t from_hex(const char *hex, uint8_t *to) {
    unsigned value;
    size_t n = 0;
    for (; hex[0] != '-' && hex[0] && sscanf(hex, "%2x", &value) == 1; hex += 2)
        to[n++] = (uint8_t)value;
    return n;
}

static void print_hex(const uint8_t *data, size_t n) {
    for (size_t i = 0; i < n; i++)
        printf("%02x", data[i]);
}

/* One line out for each line in: what was delivered, and each frame that left. */
static int play(void) {
    static char received[20000], sent[20000];
    static uint8_t data[10000];
    unsigned long ms;
    size_t n;
    link_init(&l, 115200, 0x12345678, 0, collect, NULL);
    while (scanf("%lu %19999s %19999s", &ms, received, sent) == 3) {
        n = from_hex(received, data);
        for (size_t i = 0; i < n; i++)
            link_input(&l, data[i], (uint32_t)ms);
        print_hex(data, link_read(&l, data, sizeof data));
        n = from_hex(sent, data);
        if (link_send(&l, data, n, (uint32_t)ms) != n)
            return 1;
        for (out_length = 0; link_poll(&l, (uint32_t)ms); out_length = 0) {
            putchar(' ');
            print_hex(out, out_length);
        }
        putchar('\n');
    }
    printf("%d %d\n", l.state, l.reason);
    return 0;
}

static int echo(const char *device, uint32_t baud) {
    static uint8_t data[1024], held[LINK_FRAME];
    struct termios settings;
    size_t waiting = 0, taken;
    ssize_t got;
    int port = open(device, O_RDWR | O_NOCTTY);
    if (port < 0 || tcgetattr(port, &settings))
        return 2;
    cfmakeraw(&settings);
    tcsetattr(port, TCSAFLUSH, &settings);
    link_init(&l, baud, (uint32_t)getpid(), now_ms(), collect, NULL);
    while (l.state != LINK_ENDED || waiting) {
        struct pollfd wait = {port, POLLIN, 0};
        if (poll(&wait, 1, 2) > 0) {
            got = read(port, data, sizeof data);
            if (got <= 0)
                return 3;
            for (ssize_t i = 0; i < got; i++)
                link_input(&l, data[i], now_ms());
        }
        do { /* as much as has room both ways */
            if (!waiting)
                waiting = link_read(&l, held, sizeof held);
            taken = link_send(&l, held, waiting, now_ms());
            memmove(held, held + taken, waiting - taken);
            waiting -= taken;
        } while (taken);
        for (out_length = 0; link_poll(&l, now_ms()); out_length = 0)
            if (write(port, out, out_length) != (ssize_t)out_length)
                return 4;
        if (l.state == LINK_ENDED)
            break;
    }
    printf("%d\n", l.reason);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 2 && !strcmp(argv[1], "size"))
        return printf("%zu\n", sizeof l) < 0;
    if (argc == 2 && !strcmp(argv[1], "play"))
        return play();
    if (argc == 4 && !strcmp(argv[1], "echo"))
        return echo(argv[2], (uint32_t)strtoul(argv[3], NULL, 10));
    fprintf(stderr, "usage: host size | play | echo DEVICE BAUD\n");
    return 1;
}
