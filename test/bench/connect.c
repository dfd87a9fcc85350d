// For the bench alone: opens connections one after the other, a byte there and a byte back, closed by reset so that no
// TIME_WAIT piles up. `connect serve ADDRESS PORT` | `connect ask ADDRESS PORT SECONDS` prints connections a second
// and the median in microseconds | `connect pair ADDRESS PORT ADDRESS PORT TIMES` prints both medians.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double seconds(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static int ascending(const void *a, const void *b) {
	float x = *(const float *)a, y = *(const float *)b;
	return (x > y) - (x < y);
}

static int serve(struct sockaddr_in *address) {
	int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(listener, (void *)address, sizeof *address) || listen(listener, 128)) return perror("serve"), 1;
	for (;;) {
		char byte;
		int fd = accept(listener, NULL, NULL);
		if (fd < 0) continue;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		while (read(fd, &byte, 1) == 1 && write(fd, &byte, 1) == 1)
			;
		close(fd);
	}
}

static int ask(struct sockaddr_in *address, double length) {
	enum { most = 1 << 20 };
	static float took[most];
	struct linger reset = {1, 0};
	long n = 0, failed = 0;
	double start = seconds(), now;
	while ((now = seconds()) - start < length) {
		char byte = 'x';
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
		if (connect(fd, (void *)address, sizeof *address) || write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1) failed++;
		close(fd);
		if (failed > 100) return fprintf(stderr, "ask: too many connections failed\n"), 1;
		took[n++ % most] = (seconds() - now) * 1e6;
	}
	double all = seconds() - start;
	long kept = n < most ? n : most;
	qsort(took, kept, sizeof *took, ascending);
	printf("%.1f %.2f %ld\n", n / all, took[kept / 2], failed);
	return 0;
}

/* Two addresses in turn, so that whatever else the machine does meets both alike: the median of each, in microseconds. */
static int pair(struct sockaddr_in to[2], int times) {
	struct linger reset = {1, 0};
	float *took[2] = {calloc(times, sizeof(float)), calloc(times, sizeof(float))};
	for (int i = 0; i < 2 * times; i++) {
		char byte = 'x';
		double start = seconds();
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
		if (connect(fd, (void *)&to[i & 1], sizeof *to) || write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1)
			return perror("pair"), 1;
		close(fd);
		took[i & 1][i / 2] = (seconds() - start) * 1e6;
	}
	for (int i = 0; i < 2; i++) qsort(took[i], times, sizeof(float), ascending);
	printf("%.3f %.3f\n", took[0][times / 2], took[1][times / 2]);
	return 0;
}

int main(int count, char **words) {
	struct sockaddr_in address = {.sin_family = AF_INET};
	if (count < 4) return 2;
	inet_pton(AF_INET, words[2], &address.sin_addr);
	address.sin_port = htons(atoi(words[3]));
	if (!strcmp(words[1], "serve")) return serve(&address);
	if (!strcmp(words[1], "pair") && count > 6) {
		struct sockaddr_in both[2] = {address, {.sin_family = AF_INET}};
		inet_pton(AF_INET, words[4], &both[1].sin_addr);
		both[1].sin_port = htons(atoi(words[5]));
		return pair(both, atoi(words[6]));
	}
	return ask(&address, count > 4 ? atof(words[4]) : 1);
}
