# SPDX-License-Identifier: GPL-2.0-only
"""From a machine's description to QEMU's command line."""

from __future__ import annotations

from dataclasses import dataclass

from harness.accel import qemu_accel
from harness.spec import NET, MachineSpec


@dataclass(frozen=True, slots=True)
class Descriptors:
    """The QEMU ends of the socket pairs; nothing has a path, so nothing is left behind or mixed up."""

    qmp: int
    console: int
    rpc: int
    stream: int
    fence: int
    network: int | None


def kernel_command_line(spec: MachineSpec) -> str:
    """Warnings and worse on the console; an oops is the node's death at once, as on a production node."""
    words = ["console=ttyS0", "loglevel=5", "panic=-1", "oops=panic", "net.ifnames=0", "random.trust_cpu=on"]
    words += [f"lab.node={spec.node}", f"lab.net={NET}"]
    if spec.accel == "tcg" and spec.tsc_khz:
        words += ["tsc=reliable", f"tsc_early_khz={spec.tsc_khz}"]
    return " ".join([*words, spec.append]).strip()


def qemu_argv(spec: MachineSpec, fds: Descriptors) -> list[str]:
    """The whole command line. A reset by the guest ends the process: the harness decides whether it boots again."""
    argv = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-name", spec.name]
    argv += ["-M", "q35", *qemu_accel(spec.accel), "-m", str(spec.memory_mib), "-smp", str(spec.cpus)]
    argv += ["-kernel", str(spec.kernel.vmlinux), "-initrd", str(spec.kernel.initrd)]
    argv += ["-append", kernel_command_line(spec), "-action", "reboot=shutdown,watchdog=reset"]
    argv += _disks(spec)
    argv += _channels(fds)
    if fds.network is not None:
        argv += ["-netdev", f"stream,id=net0,server=off,addr.type=fd,addr.str={fds.network}"]
        argv += ["-device", f"virtio-net-pci,netdev=net0,mac={spec.mac},romfile="]
    argv += ["-device", "i6300esb"]
    return argv


def _disks(spec: MachineSpec) -> list[str]:
    """vda root, vdb kernel modules, vdc payload, vdd... shared, then the node's own (serials: root, modules, payload, shared0..., own)."""
    argv: list[str] = []
    snapshot = "off" if spec.root_kept else "on"
    own = (("root", spec.root, f"snapshot={snapshot},cache=unsafe"), ("modules", spec.kernel.modules_image, "readonly=on"),
           ("payload", spec.payload, "readonly=on"))
    for name, path, options in own:
        argv += ["-drive", f"if=none,id={name},format=raw,file={path},file.locking=off,{options}"]
        argv += ["-device", f"virtio-blk-pci,drive={name},serial={name}"]
    cache = "none" if spec.direct_io else "writeback"
    for number, path in enumerate(spec.shared_disks):
        name = f"shared{number}"
        argv += ["-drive", f"if=none,id={name},format=raw,file={path},file.locking=off,cache={cache},discard=unmap"]
        argv += ["-device", f"virtio-blk-pci,drive={name},serial={name},share-rw=on"]
    if spec.own_disk is not None:
        argv += ["-drive", f"if=none,id=own,format=raw,file={spec.own_disk},file.locking=off,cache=writeback"]
        argv += ["-device", "virtio-blk-pci,drive=own,serial=own"]
    return argv


def _channels(fds: Descriptors) -> list[str]:
    argv = ["-chardev", f"socket,id=qmp,fd={fds.qmp}", "-mon", "chardev=qmp,mode=control"]
    argv += ["-chardev", f"socket,id=console,fd={fds.console}", "-serial", "chardev:console"]
    argv += ["-device", "virtio-serial-pci,max_ports=8"]
    for number, (name, fd) in enumerate((("rpc", fds.rpc), ("stream", fds.stream), ("fence", fds.fence)), start=1):
        argv += ["-chardev", f"socket,id={name},fd={fd}"]
        argv += ["-device", f"virtserialport,chardev={name},name=vcs.{name},nr={number}"]
    return argv
