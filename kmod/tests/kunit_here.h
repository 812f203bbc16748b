/* SPDX-License-Identifier: GPL-2.0 */
/*
 * KUnit where the kernel has it, which Debian's have not: there as much of it as
 * our suites need, so that they run on the kernels that are used, too (loading the
 * module runs them, see kunit_here.c). An assertion that fails does not end its case.
 */
#ifndef _VCS_KUNIT_HERE_H
#define _VCS_KUNIT_HERE_H

#include <linux/kconfig.h>

#if IS_ENABLED(CONFIG_KUNIT)
#include <kunit/test.h>
#else
#include <linux/printk.h>
#include <linux/types.h>

struct kunit {
	const char *name;
	unsigned int failures;
};

struct kunit_case {
	void (*run_case)(struct kunit *test);
	const char *name;
};

struct kunit_suite {
	const char *name;
	int (*suite_init)(struct kunit_suite *suite);
	void (*suite_exit)(struct kunit_suite *suite);
	int (*init)(struct kunit *test);
	struct kunit_case *test_cases;
};

/* One in each file of suites. */
extern struct kunit_suite *vcs_lease_suite, *vcs_group_suite, *vcs_heartbeat_suite;

#define KUNIT_CASE(function)		{ .run_case = (function), .name = #function }
#define KUNIT_CASE_SLOW(function)	KUNIT_CASE(function)
#define kunit_test_suite(suite)		struct kunit_suite *vcs_##suite = &(suite)
#define kunit_info(test, fmt, ...)	pr_info("vcs_kunit: %s: " fmt, (test)->name, ##__VA_ARGS__)

static inline void kunit_here(struct kunit *test, bool is, const char *file, int line,
			      const char *what)
{
	if (is)
		return;
	test->failures++;
	pr_err_ratelimited("vcs_kunit: %s: %s:%d: %s is not so\n", test->name, file, line, what);
}

static inline __printf(3, 4)
void kunit_here_said(struct kunit *test, bool is, const char *fmt, ...)
{
	struct va_format vaf = { .fmt = fmt };
	va_list args;

	if (is)
		return;
	test->failures++;
	va_start(args, fmt);
	vaf.va = &args;
	pr_err_ratelimited("vcs_kunit: %s: %pV\n", test->name, &vaf);
	va_end(args);
}

#define KUNIT_EXPECT_TRUE(test, is)	kunit_here(test, is, __FILE__, __LINE__, #is)
#define KUNIT_EXPECT_FALSE(test, is)	KUNIT_EXPECT_TRUE(test, !(is))
#define KUNIT_EXPECT_EQ(test, a, b)	KUNIT_EXPECT_TRUE(test, (a) == (b))
#define KUNIT_EXPECT_NE(test, a, b)	KUNIT_EXPECT_TRUE(test, (a) != (b))
#define KUNIT_EXPECT_LE(test, a, b)	KUNIT_EXPECT_TRUE(test, (a) <= (b))
#define KUNIT_EXPECT_GT(test, a, b)	KUNIT_EXPECT_TRUE(test, (a) > (b))
#define KUNIT_ASSERT_TRUE(test, is)	KUNIT_EXPECT_TRUE(test, is)
#define KUNIT_ASSERT_FALSE(test, is)	KUNIT_EXPECT_TRUE(test, !(is))
#define KUNIT_ASSERT_EQ(test, a, b)	KUNIT_EXPECT_TRUE(test, (a) == (b))
#define KUNIT_ASSERT_LE(test, a, b)	KUNIT_EXPECT_TRUE(test, (a) <= (b))
#define KUNIT_ASSERT_NOT_NULL(test, p)	KUNIT_EXPECT_TRUE(test, p)
#define KUNIT_ASSERT_EQ_MSG(test, a, b, fmt, ...)	\
	kunit_here_said(test, (a) == (b), fmt, ##__VA_ARGS__)
#define KUNIT_ASSERT_TRUE_MSG(test, is, fmt, ...)	\
	kunit_here_said(test, is, fmt, ##__VA_ARGS__)
#endif /* CONFIG_KUNIT */

#endif /* _VCS_KUNIT_HERE_H */
