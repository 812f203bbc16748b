// SPDX-License-Identifier: GPL-2.0-only
/*
 * PID 1 of a lab guest, from the initrd on: loads the modules that reach the disks, mounts everything, names what the
 * harness attached, configures the network, then keeps the agent running and reaps orphans; or hands over to lab.init=.
 *
 * One static program instead of shell scripts because under emulation every fork and exec costs 50 ms, and what udev
 * and systemd would do here takes forty of them.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void say(const char *what, const char *which)
{
	dprintf(2, "lab init: %s %s: %s\n", what, which, strerror(errno));
}

static void mount_at(const char *what, const char *where, const char *type, unsigned long flags, const char *data)
{
	mkdir(where, 0755);
	if (mount(what, where, type, flags, data))
		say("mount", where);
}

/* A small file's first line, without its newline; "" if there is none. */
static const char *line_of(const char *path)
{
	static char text[4096];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		close(fd);
	text[got > 0 ? got : 0] = 0;
	text[strcspn(text, "\n")] = 0;
	return text;
}

/* The initrd's modules, in the order that depmod gave; their memory is given back. */
static void load_modules(void)
{
	char path[300] = "/modules/";
	char name[256];
	FILE *order = fopen("/modules/order", "r");
	int fd;

	while (order && fscanf(order, "%255s", name) == 1) {
		strcpy(path + strlen("/modules/"), name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || syscall(SYS_finit_module, fd, "", 0))
			say("insmod", name);
		close(fd);
		unlink(path);
	}
	if (order)
		fclose(order);
}

static void enter_root(void)
{
	static const char *const carried[] = { "dev", "proc", "sys" };
	char to[32], from[32];
	size_t i;

	mount_at("/dev/vda", "/root", "ext4", MS_NOATIME, "");
	mount_at("/dev/vdb", "/root/opt/vcs/modules", "ext4", MS_RDONLY, "noload");
	mount_at("/dev/vdc", "/root/opt/vcs/src", "ext4", MS_RDONLY, "noload");
	for (i = 0; i < sizeof(carried) / sizeof(*carried); i++) {
		snprintf(from, sizeof(from), "/%s", carried[i]);
		snprintf(to, sizeof(to), "/root/%s", carried[i]);
		mount_at(from, to, NULL, MS_MOVE, NULL);
	}
	if (chdir("/root") || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
		say("change root to", "/root");
}

static void mount_rest(void)
{
	mount_at("tmpfs", "/run", "tmpfs", 0, "mode=755");
	mount_at("tmpfs", "/tmp", "tmpfs", 0, "");
	mount_at("devpts", "/dev/pts", "devpts", 0, "");
	mount_at("tmpfs", "/dev/shm", "tmpfs", 0, "");
	mount_at("debugfs", "/sys/kernel/debug", "debugfs", 0, "");
	mount_at("tracefs", "/sys/kernel/tracing", "tracefs", 0, "");
	mount_at("configfs", "/sys/kernel/config", "configfs", 0, "");
	mount_at("cgroup2", "/sys/fs/cgroup", "cgroup2", 0, "");
	mkdir("/run/vcs", 0755);
	mkdir("/run/lock", 0755);
	mkdir("/run/lab", 0755);
	mkdir("/run/lab/log", 0755);
	mkdir("/dev/misc", 0755);
	if (symlink("/proc/self/fd", "/dev/fd"))
		say("link", "/dev/fd");
}

/* For every entry of `folder`: links/<prefix><content of entry/attribute> -> ../<up>entry. */
static void link_by(const char *folder, const char *attribute, const char *links, const char *prefix, const char *up)
{
	char path[600], target[300];
	struct dirent *entry;
	DIR *dir = opendir(folder);
	const char *name;

	mkdir(links, 0755);
	while (dir && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), "%s/%s/%s", folder, entry->d_name, attribute);
		name = entry->d_name[0] == '.' ? "" : line_of(path);
		if (!*name)
			continue;
		snprintf(path, sizeof(path), "%s/%s%s", links, prefix, name);
		snprintf(target, sizeof(target), "%s%s", up, entry->d_name);
		if (symlink(target, path))
			say("link", path);
	}
	if (dir)
		closedir(dir);
}

/* The value of `word=` on the kernel command line, or `otherwise`. */
static const char *argument(const char *word, const char *otherwise)
{
	static char value[64];
	const char *found = strstr(line_of("/proc/cmdline"), word);
	size_t size;

	if (!found)
		return otherwise;
	found += strlen(word);
	size = strcspn(found, " ");
	snprintf(value, sizeof(value), "%.*s", (int)(size < 63 ? size : 63), found);
	return value;
}

static void interface_up(int sock, const char *name, const char *address)
{
	struct ifreq request = { 0 };
	struct sockaddr_in *in = (struct sockaddr_in *)&request.ifr_addr;

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	if (address) {
		in->sin_family = AF_INET;
		inet_pton(AF_INET, address, &in->sin_addr);
		if (ioctl(sock, SIOCSIFADDR, &request))
			say("address of", name);
		inet_pton(AF_INET, "255.255.255.0", &in->sin_addr);
		if (ioctl(sock, SIOCSIFNETMASK, &request))
			say("mask of", name);
	}
	memset(&request.ifr_ifru, 0, sizeof(request.ifr_ifru));
	request.ifr_flags = IFF_UP | IFF_RUNNING;
	if (ioctl(sock, SIOCSIFFLAGS, &request))
		say("up", name);
}

static void identify(void)
{
	char name[80], address[160], node[64];
	int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	snprintf(node, sizeof(node), "%s", argument("lab.node=", "1"));
	snprintf(name, sizeof(name), "node%s", node);
	snprintf(address, sizeof(address), "%s.%s", argument("lab.net=", "10.77.0"), node);
	if (sethostname(name, strlen(name)))
		say("host name", name);
	interface_up(sock, "lo", NULL);
	if (!access("/sys/class/net/eth0", F_OK))
		interface_up(sock, "eth0", address);
	close(sock);
}

static pid_t start_agent(void)
{
	static char *const argv[] = {
		"python3", "-S", "-c", "import lab.agent; lab.agent.start()", NULL
	};
	static char *const environment[] = {
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8",
		"PYTHONPATH=/opt/vcs/src:/opt/vcs/lib", "PYTHONDONTWRITEBYTECODE=1", NULL
	};
	pid_t pid = fork();

	if (pid)
		return pid;
	setsid();
	if (chdir("/root"))
		say("chdir", "/root");
	execve("/usr/bin/python3", argv, environment);
	say("start", "/usr/bin/python3");
	_exit(127);
}

/* Another init that the command line asks for is PID 1 from here on; the agent is a child that it has from its birth. */
static void hand_over(const char *init)
{
	char path[64];

	snprintf(path, sizeof(path), "%s", init);
	if (*path && execl(path, path, (char *)NULL))
		say("start", path);
}

int main(void)
{
	pid_t agent, ended;
	int status;

	mount_at("dev", "/dev", "devtmpfs", 0, "");
	mount_at("proc", "/proc", "proc", 0, "");
	mount_at("sys", "/sys", "sysfs", 0, "");
	load_modules();
	enter_root();
	mount_rest();
	mkdir("/dev/disk", 0755);
	link_by("/sys/block", "serial", "/dev/disk/by-id", "virtio-", "../../");
	link_by("/sys/class/virtio-ports", "name", "/dev/virtio-ports", "", "../");
	identify();
	agent = start_agent();
	hand_over(argument("lab.init=", ""));
	for (;;) {
		ended = waitpid(-1, &status, 0);
		if (ended == agent) {
			dprintf(2, "lab init: the agent ended with status %#x: started again\n", status);
			sleep(1);
			agent = start_agent();
		}
	}
}
