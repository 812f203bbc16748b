// SPDX-License-Identifier: GPL-2.0
/*
 * Runs our KUnit suites where the kernel has no KUnit. The module is loaded when
 * every case has passed, and says how many there were; the log names the others.
 */
#include <linux/module.h>

#include "kunit_here.h"

static unsigned int passed;
module_param(passed, uint, 0444);
MODULE_PARM_DESC(passed, "cases that passed");

/* How many of its cases have failed. */
static unsigned int run(struct kunit_suite *suite)
{
	struct kunit test;
	struct kunit_case *one;
	unsigned int failed = 0;

	if (suite->suite_init && suite->suite_init(suite))
		return 1;
	for (one = suite->test_cases; one->run_case; one++) {
		test = (struct kunit){ .name = one->name };
		if (suite->init && suite->init(&test))
			test.failures++;
		else
			one->run_case(&test);
		pr_info("vcs_kunit: %s %s.%s\n", test.failures ? "not ok" : "ok", suite->name,
			one->name);
		failed += !!test.failures;
		passed += !test.failures;
	}
	if (suite->suite_exit)
		suite->suite_exit(suite);
	return failed;
}

static int __init kunit_here_init(void)
{
	return run(vcs_lease_suite) + run(vcs_group_suite) + run(vcs_heartbeat_suite) ?
	       -EPROTO : 0;
}

static void __exit kunit_here_exit(void)
{
}

module_init(kunit_here_init);
module_exit(kunit_here_exit);
