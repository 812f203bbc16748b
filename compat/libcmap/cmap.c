// SPDX-License-Identifier: GPL-2.0-only
/*
 * A libcmap.so.4 that knows one thing: the cluster's name.
 *
 * mdadm --create --bitmap=clustered wants to know the name and asks corosync's library for it; nothing else will do, and with corosync not
 * running that library fails. mkfs.ocfs2 asks the same way when it is told no name. The answer here is the name that this
 * kernel's DLM was given (configfs), because that is what the kernel will compare with: md and OCFS2 hand their name to
 * dlm_new_lockspace(), which refuses any other (EBADR).
 *
 * Who wants it names its folder in LD_LIBRARY_PATH, so that nobody else gets it instead of corosync's.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef CLUSTER_NAME_FILE
#define CLUSTER_NAME_FILE "/sys/kernel/config/dlm/cluster/cluster_name"
#endif

/* Values of corosync's cs_error_t. */
enum { CS_OK = 1, CS_ERR_LIBRARY = 2, CS_ERR_INVALID_PARAM = 7, CS_ERR_NO_MEMORY = 8, CS_ERR_NOT_EXIST = 12 };

#define NAME_KEY "totem.cluster_name"
#define HANDLE 1

/* The DLM's cluster name without its newline; its length, 0 if there is none. */
static size_t cluster_name(char *name, size_t size)
{
	int fd = open(CLUSTER_NAME_FILE, O_RDONLY | O_CLOEXEC);
	ssize_t got = -1;

	if (fd < 0)
		return 0;
	do {
		got = read(fd, name, size - 1);
	} while (got < 0 && errno == EINTR);
	close(fd);
	name[got > 0 ? got : 0] = '\0';
	name[strcspn(name, "\n")] = '\0';
	return strlen(name);
}

/* CS_ERR_LIBRARY, as when corosync does not run: dlm_glue has not set the DLM up. */
int cmap_initialize(uint64_t *handle)
{
	char name[128];

	if (!handle)
		return CS_ERR_INVALID_PARAM;
	if (!cluster_name(name, sizeof(name)))
		return CS_ERR_LIBRARY;
	*handle = HANDLE;
	return CS_OK;
}

/* *value is malloced and the caller's, or NULL: mdadm frees it after a failure, too. */
int cmap_get_string(uint64_t handle, const char *key, char **value)
{
	char name[128];

	if (!key || !value)
		return CS_ERR_INVALID_PARAM;
	*value = NULL;
	if (handle != HANDLE || strcmp(key, NAME_KEY))
		return CS_ERR_NOT_EXIST;
	if (!cluster_name(name, sizeof(name)))
		return CS_ERR_LIBRARY;
	*value = strdup(name);
	return *value ? CS_OK : CS_ERR_NO_MEMORY;
}

int cmap_finalize(uint64_t handle)
{
	return handle == HANDLE ? CS_OK : CS_ERR_INVALID_PARAM;
}
