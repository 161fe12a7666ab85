/* The other end of every benchmark: an MQTT peer that does the least a peer can do.
 *
 *   sink SHARED_FILE
 *
 * One epoll loop on a free port of 127.0.0.1. It answers CONNECT (3.1, 3.1.1, 5.0), SUBSCRIBE and every QoS
 * handshake, counts, and after a SUBSCRIBE sends as many PUBLISH packets as it was told. It checks nothing,
 * stores nothing and is no broker; being C and that simple, it is never what a run waits for. It ends with
 * the process that started it. SHARED_FILE (4 KiB) connects it with that process; see benchmarks/harness.py,
 * which has the same table.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { /* 64-bit words of the shared file */
    ORDER_COUNT = 0,   /* in: messages to send after a SUBSCRIBE */
    ORDER_SIZE = 1,    /* in: bytes of their payload */
    ORDER_QOS = 2,     /* in: their QoS */
    ORDER_WINDOW = 3,  /* in: unacknowledged messages at a time */
    PUBLISHED = 16,    /* out: PUBLISH packets received */
    RELEASED = 17,     /* out: PUBREL packets received, the end of a QoS 2 exchange */
    SENT = 18,         /* out: messages sent */
    ACKNOWLEDGED = 19, /* out: of those, PUBACK or PUBCOMP received */
    PORT = 24,         /* out: where it listens, 0 until it does */
    TOPIC_BYTE = 2048, /* in: topic of the messages to send, NUL-terminated */
};

#define IN_SIZE (1u << 20)
#define OUT_FULL (256u << 10)
#define SHARED_SIZE 4096

struct connection {
    int fd, level, polls_write, sending, qos;
    uint8_t *in, *out;
    size_t in_length, out_length, out_start, out_size;
    uint64_t sent, acknowledged, total, window, receive_maximum;
    uint8_t *packet; /* the PUBLISH that is sent again and again */
    size_t packet_length, packet_id_at;
};

static volatile uint64_t *shared;
static int poller;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void put(struct connection *c, const void *bytes, size_t length) {
    if (c->out_start && c->out_start == c->out_length) c->out_start = c->out_length = 0;
    if (c->out_length + length > c->out_size && c->out_start) {
        memmove(c->out, c->out + c->out_start, c->out_length - c->out_start);
        c->out_length -= c->out_start;
        c->out_start = 0;
    }
    while (c->out_length + length > c->out_size) {
        c->out_size = c->out_size ? c->out_size * 2 : 65536;
        c->out = realloc(c->out, c->out_size);
        if (!c->out) die("realloc");
    }
    memcpy(c->out + c->out_length, bytes, length);
    c->out_length += length;
}

static void put_acknowledgement(struct connection *c, uint8_t first, const uint8_t *packet_id) {
    uint8_t packet[4] = {first, 2, packet_id[0], packet_id[1]};
    put(c, packet, sizeof packet);
}

static size_t write_length(uint8_t *to, size_t length) {
    size_t count = 0;
    do {
        to[count] = length & 127;
        length >>= 7;
        if (length) to[count] |= 128;
        count++;
    } while (length);
    return count;
}

/* Prepares the messages that were ordered. */
static void begin_sending(struct connection *c) {
    const char *topic = (const char *)shared + TOPIC_BYTE;
    size_t size = shared[ORDER_SIZE], topic_length = strlen(topic), has_properties = c->level >= 5;
    c->total = shared[ORDER_COUNT];
    if (!c->total) return;
    c->qos = (int)shared[ORDER_QOS];
    c->window = shared[ORDER_WINDOW] < c->receive_maximum ? shared[ORDER_WINDOW] : c->receive_maximum;
    size_t body = 2 + topic_length + (c->qos ? 2 : 0) + has_properties + size;
    free(c->packet);
    uint8_t *p = c->packet = malloc(body + 5);
    if (!p) die("malloc");
    *p++ = 0x30 | (c->qos << 1);
    p += write_length(p, body);
    *p++ = topic_length >> 8;
    *p++ = topic_length & 255;
    memcpy(p, topic, topic_length);
    p += topic_length;
    c->packet_id_at = p - c->packet;
    if (c->qos) p += 2;
    if (has_properties) *p++ = 0;
    memset(p, 'x', size);
    c->packet_length = p + size - c->packet;
    c->sent = c->acknowledged = 0;
    c->sending = 1;
}

static void send_more(struct connection *c) {
    while (c->sending && c->sent < c->total && c->out_length - c->out_start < OUT_FULL) {
        if (c->qos) {
            if (c->sent - c->acknowledged >= c->window) break;
            unsigned packet_id = 1 + c->sent % 65535;
            c->packet[c->packet_id_at] = packet_id >> 8;
            c->packet[c->packet_id_at + 1] = packet_id & 255;
        }
        put(c, c->packet, c->packet_length);
        c->sent++;
    }
    if (c->sending) shared[SENT] = c->sent;
}

static int on_connect(struct connection *c, const uint8_t *body, size_t length) {
    if (length < 10) return -1;
    size_t at = 2 + ((body[0] << 8) | body[1]);
    if (at + 4 > length) return -1;
    c->level = body[at] & 0x7f;
    c->receive_maximum = 65535;
    at += 4;
    if (c->level < 5) {
        put(c, "\x20\x02\x00\x00", 4);
        return 0;
    }
    if (at >= length || body[at] & 128) return -1; /* clients under test have short properties */
    size_t end = at + 1 + body[at];
    for (at++; at + 2 < end && end <= length;) {
        switch (body[at]) {
        case 0x21: c->receive_maximum = (body[at + 1] << 8) | body[at + 2]; at += 3; break;
        case 0x11: case 0x27: at += 5; break;
        case 0x22: at += 3; break;
        case 0x17: case 0x19: at += 2; break;
        default: at = end;
        }
    }
    put(c, "\x20\x03\x00\x00\x00", 5);
    return 0;
}

static int on_subscribe(struct connection *c, const uint8_t *body, size_t length) {
    uint8_t codes[256];
    size_t count = 0, at = 2;
    if (c->level >= 5) at += 1 + body[2];
    while (at + 2 < length && count < sizeof codes) {
        at += 2 + ((body[at] << 8) | body[at + 1]);
        if (at >= length) return -1;
        codes[count++] = body[at++] & 3;
    }
    uint8_t header[5] = {0x90, 0, body[0], body[1], 0};
    size_t header_length = c->level >= 5 ? 5 : 4;
    header[1] = header_length - 2 + count;
    put(c, header, header_length);
    put(c, codes, count);
    begin_sending(c);
    return 0;
}

static int on_publish(struct connection *c, uint8_t first, const uint8_t *body, size_t length) {
    int qos = (first >> 1) & 3;
    size_t packet_id_at = 2 + ((body[0] << 8) | body[1]);
    if (packet_id_at + (qos ? 2 : 0) > length) return -1;
    if (qos) put_acknowledgement(c, qos == 1 ? 0x40 : 0x50, body + packet_id_at);
    shared[PUBLISHED]++;
    return 0;
}

/* Handles one whole packet. Returns -1 when the connection is to be closed. */
static int on_packet(struct connection *c, uint8_t first, const uint8_t *body, size_t length) {
    int kind = first >> 4;
    if (kind == 12) { /* PINGREQ */
        put(c, "\xd0\x00", 2);
        return 0;
    }
    if (kind == 14 || length < 2) return -1; /* DISCONNECT, or garbage */
    switch (kind) {
    case 1: return on_connect(c, body, length);
    case 3: return on_publish(c, first, body, length);
    case 4: case 7: c->acknowledged++; shared[ACKNOWLEDGED]++; return 0; /* PUBACK, PUBCOMP */
    case 5: put_acknowledgement(c, 0x62, body); return 0;                /* PUBREC */
    case 6: put_acknowledgement(c, 0x70, body); shared[RELEASED]++; return 0; /* PUBREL */
    case 8: return on_subscribe(c, body, length);
    default: return -1;
    }
}

static int on_readable(struct connection *c) {
    ssize_t got = recv(c->fd, c->in + c->in_length, IN_SIZE - c->in_length, 0);
    if (got == 0) return -1;
    if (got < 0) return errno == EAGAIN ? 0 : -1;
    c->in_length += got;
    size_t at = 0;
    while (c->in_length - at >= 2) {
        const uint8_t *packet = c->in + at;
        size_t body = 0, start = 1, available = c->in_length - at;
        for (unsigned shift = 0;; shift += 7) {
            if (shift > 21) return -1;
            if (start >= available) goto incomplete;
            body |= (size_t)(packet[start] & 127) << shift;
            if (!(packet[start++] & 128)) break;
        }
        if (start + body > IN_SIZE) return -1;
        if (start + body > available) break;
        if (on_packet(c, packet[0], packet + start, body) < 0) return -1;
        at += start + body;
    }
incomplete:
    memmove(c->in, c->in + at, c->in_length - at);
    c->in_length -= at;
    return 0;
}

static int flush(struct connection *c) {
    for (;;) {
        send_more(c);
        if (c->out_start == c->out_length) break;
        ssize_t taken = send(c->fd, c->out + c->out_start, c->out_length - c->out_start, MSG_NOSIGNAL);
        if (taken < 0 && errno == EAGAIN) break;
        if (taken < 0) return -1;
        c->out_start += taken;
    }
    int poll_write = c->out_start != c->out_length;
    if (poll_write != c->polls_write) {
        struct epoll_event event = {.events = EPOLLIN | (poll_write ? EPOLLOUT : 0), .data.ptr = c};
        epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
        c->polls_write = poll_write;
    }
    return 0;
}

static void accept_connection(int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), one = 1;
    if (fd < 0) return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct connection *c = calloc(1, sizeof *c);
    if (!c || !(c->in = malloc(IN_SIZE))) die("malloc");
    c->fd = fd;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
}

static void end_connection(struct connection *c) {
    close(c->fd);
    free(c->in);
    free(c->out);
    free(c->packet);
    free(c);
}

static int listen_anywhere(void) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    if (bind(listener, (struct sockaddr *)&address, length) || listen(listener, 64)) die("listen");
    if (getsockname(listener, (struct sockaddr *)&address, &length)) die("getsockname");
    shared[PORT] = ntohs(address.sin_port);
    return listener;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: sink SHARED_FILE\n");
        return 2;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int file = open(argv[1], O_RDWR);
    if (file < 0) die(argv[1]);
    shared = mmap(NULL, SHARED_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (shared == MAP_FAILED) die("mmap");
    poller = epoll_create1(EPOLL_CLOEXEC);
    int listener = listen_anywhere();
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        struct epoll_event events[64];
        int count = epoll_wait(poller, events, 64, -1);
        for (int i = 0; i < count; i++) {
            struct connection *c = events[i].data.ptr;
            if (!c) {
                accept_connection(listener);
                continue;
            }
            int failed = events[i].events & EPOLLIN ? on_readable(c) < 0 : events[i].events & (EPOLLERR | EPOLLHUP);
            if (failed || flush(c) < 0) end_connection(c);
        }
    }
}
