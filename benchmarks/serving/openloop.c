/* Open-loop load: request i is due at start + i / rate, whatever became of the ones before it.
 *
 *   openloop HOST PORT PATH RATE SECONDS CONNECTIONS BODIES [HEADER...]
 *
 * Latency counts from the moment a request was due, not from when it was sent: a server that stalls is charged for
 * everything that was due meanwhile (no coordinated omission). A due request waits for an idle connection, the one
 * idle for longest is taken; one request at a time on each. BODIES has one body per line, sent in turn.
 * Each second one line of JSON {"t","due","answered"} is written, at the end one with the result.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define BUFFER 65536
#define GIVE_UP_NS 10000000000LL /* an answer that takes longer is an error */

typedef struct {
  int fd, busy;
  int64_t due, freed;
  size_t have;
  char buffer[BUFFER + 1];
} Connection;

static struct sockaddr_in address;
static Connection *connections;
static int *idle, idle_at, idle_count, total, poller;
static uint32_t *latencies, *delays;
static int64_t answered, refused, broken;

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void die(const char *what) {
  perror(what);
  exit(2);
}

static void rest(int index) {
  connections[index].freed = now_ns();
  idle[(idle_at + idle_count++) % total] = index;
}

static void dial(int index) {
  Connection *c = &connections[index];
  int one = 1;
  c->fd = socket(AF_INET, SOCK_STREAM, 0);
  if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address)) die("connect");
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  fcntl(c->fd, F_SETFL, O_NONBLOCK);
  struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)index};
  if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event)) die("epoll_ctl");
  c->busy = 0;
  c->have = 0;
  rest(index);
}

static void redial(int index) {
  close(connections[index].fd);
  if (connections[index].busy) broken++;
  else { /* it was among the idle ones: take it out */
    int kept = 0, seen = idle_count;
    for (int i = 0; i < seen; i++) {
      int other = idle[(idle_at + i) % total];
      if (other != index) idle[(idle_at + kept++) % total] = other;
    }
    idle_count = kept;
  }
  dial(index);
}

static int put(int fd, const char *data, size_t size) {
  while (size) {
    ssize_t n = send(fd, data, size, MSG_NOSIGNAL);
    if (n < 0 && errno == EAGAIN) {
      struct pollfd p = {fd, POLLOUT, 0};
      poll(&p, 1, 1000);
      continue;
    }
    if (n <= 0) return -1;
    data += n;
    size -= (size_t)n;
  }
  return 0;
}

/* Bytes of the complete answer in the buffer, 0 while it is not complete. */
static size_t complete(Connection *c, int *status, int *closes) {
  c->buffer[c->have] = 0;
  char *end = strstr(c->buffer, "\r\n\r\n");
  if (!end) return 0;
  size_t head = (size_t)(end - c->buffer) + 4;
  long length = -1;
  int chunked = 0;
  *status = c->have > 12 ? atoi(c->buffer + 9) : 0;
  *closes = 0;
  for (char *line = strstr(c->buffer, "\r\n"); line && line < end; line = strstr(line + 2, "\r\n")) {
    if (!strncasecmp(line + 2, "content-length:", 15)) length = atol(line + 17);
    if (!strncasecmp(line + 2, "transfer-encoding: chunked", 26)) chunked = 1;
    if (!strncasecmp(line + 2, "connection: close", 17)) *closes = 1;
  }
  if (chunked) return c->have >= head + 5 && !memcmp(c->buffer + c->have - 5, "0\r\n\r\n", 5) ? c->have : 0;
  if (length < 0) length = 0;
  return c->have >= head + (size_t)length ? head + (size_t)length : 0;
}

static void readable(int index) {
  Connection *c = &connections[index];
  ssize_t n = recv(c->fd, c->buffer + c->have, BUFFER - c->have, 0);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0 || !c->busy) {
    redial(index);
    return;
  }
  c->have += (size_t)n;
  int status, closes;
  if (!complete(c, &status, &closes)) {
    if (c->have == BUFFER) redial(index);
    return;
  }
  int64_t us = (now_ns() - c->due) / 1000;
  if (status >= 200 && status < 300) latencies[answered++] = us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
  else refused++;
  c->busy = 0;
  c->have = 0;
  rest(index);
  if (closes) redial(index);
}

static int by_size(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return x < y ? -1 : x > y;
}

static uint32_t at(const uint32_t *sorted, int64_t count, double share) {
  if (!count) return 0;
  int64_t i = (int64_t)(share * (double)count);
  return sorted[i < count ? i : count - 1];
}

int main(int argc, char **argv) {
  if (argc < 8) {
    fprintf(stderr, "openloop HOST PORT PATH RATE SECONDS CONNECTIONS BODIES [HEADER...]\n");
    return 2;
  }
  double rate = atof(argv[4]), seconds = atof(argv[5]);
  total = atoi(argv[6]);
  int64_t wanted = (int64_t)(rate * seconds);
  address.sin_family = AF_INET;
  address.sin_port = htons((uint16_t)atoi(argv[2]));
  if (!inet_aton(argv[1], &address.sin_addr) || wanted < 1 || total < 1) return 2;

  char headers[16384] = "";
  for (int i = 8; i < argc; i++) {
    if (strlen(headers) + strlen(argv[i]) + 3 > sizeof headers) return 2;
    strcat(strcat(headers, argv[i]), "\r\n");
  }
  FILE *file = fopen(argv[7], "r");
  if (!file) die(argv[7]);
  char **prepared = NULL, *line = NULL;
  size_t *sizes = NULL, room = 0, bodies = 0;
  for (ssize_t n; (n = getline(&line, &room, file)) > 0;) {
    if (line[n - 1] == '\n') line[--n] = 0;
    prepared = realloc(prepared, (bodies + 1) * sizeof *prepared);
    sizes = realloc(sizes, (bodies + 1) * sizeof *sizes);
    sizes[bodies] = (size_t)asprintf(&prepared[bodies],
        "POST %s HTTP/1.1\r\nHost: %s:%s\r\nContent-Type: application/json\r\n%sContent-Length: %zd\r\n\r\n%s",
        argv[3], argv[1], argv[2], headers, n, line);
    bodies++;
  }
  if (!bodies) return 2;

  latencies = malloc((size_t)wanted * sizeof *latencies);
  delays = malloc((size_t)wanted * sizeof *delays);
  connections = calloc((size_t)total, sizeof *connections);
  idle = calloc((size_t)total, sizeof *idle);
  if (!latencies || !delays || !connections || !idle) die("memory");
  poller = epoll_create1(0);
  prctl(PR_SET_TIMERSLACK, 1UL);
  // Where it may, the generator goes first: its own wait for a processor is not the system's latency.
  sched_setscheduler(0, SCHED_RR, &(struct sched_param){.sched_priority = 3});
  int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
  struct epoll_event event = {.events = EPOLLIN, .data.u32 = UINT32_MAX};
  if (timer < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, timer, &event)) die("timer");
  for (int i = 0; i < total; i++) dial(i);

  struct epoll_event events[256];
  int64_t sent = 0, start = now_ns() + 50000000, told = start, last = start + (int64_t)(seconds * 1e9);
  for (;;) {
    int64_t now = now_ns();
    while (sent < wanted && idle_count) {
      int64_t due = start + (int64_t)((double)sent * 1e9 / rate);
      if (due > now || now > last + GIVE_UP_NS) break;
      int index = idle[idle_at];
      Connection *c = &connections[index];
      idle_at = (idle_at + 1) % total;
      idle_count--;
      c->busy = 1;
      c->due = due;
      /* This generator's own lateness: what waited for a connection waited for the system. */
      int64_t could = c->freed > due ? c->freed : due;
      delays[sent] = now > could ? (uint32_t)((now - could) / 1000) : 0;
      size_t body = (size_t)sent % bodies;
      sent++;
      if (put(c->fd, prepared[body], sizes[body])) redial(index);
    }
    if (now - told >= 1000000000LL) {
      told += 1000000000LL;
      int64_t due = (int64_t)((double)(now - start) * rate / 1e9);
      printf("{\"t\":%.3f,\"due\":%ld,\"answered\":%ld}\n", (double)(now - start) / 1e9,
             (long)(due < wanted ? due : wanted), (long)answered);
      fflush(stdout);
      for (int i = 0; i < total; i++)
        if (connections[i].busy && now - connections[i].due > GIVE_UP_NS) redial(i);
    }
    if ((sent == wanted && idle_count == total) || now > last + GIVE_UP_NS) break;
    int64_t next = sent < wanted && idle_count ? start + (int64_t)((double)sent * 1e9 / rate) : now + 100000000;
    struct itimerspec at_ = {.it_value = {next / 1000000000, next % 1000000000}};
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &at_, NULL);
    int n = epoll_wait(poller, events, 256, -1);
    for (int i = 0; i < n; i++) {
      if (events[i].data.u32 == UINT32_MAX) {
        uint64_t rung;
        if (read(timer, &rung, sizeof rung) < 0 && errno != EAGAIN) die("timer");
      } else {
        readable((int)events[i].data.u32);
      }
    }
  }
  double took = (double)(now_ns() - start) / 1e9;
  qsort(latencies, (size_t)answered, sizeof *latencies, by_size);
  qsort(delays, (size_t)sent, sizeof *delays, by_size);
  printf("{\"rate\":%.1f,\"seconds\":%.3f,\"due\":%ld,\"answered\":%ld,\"status\":%ld,\"broken\":%ld,\"unsent\":%ld,"
         "\"p50_us\":%u,\"p99_us\":%u,\"p999_us\":%u,\"max_us\":%u,\"send_delay_p99_us\":%u}\n",
         rate, took, (long)wanted, (long)answered, (long)refused, (long)broken, (long)(wanted - sent),
         at(latencies, answered, 0.5), at(latencies, answered, 0.99), at(latencies, answered, 0.999),
         answered ? latencies[answered - 1] : 0, at(delays, sent, 0.99));
  return 0;
}
