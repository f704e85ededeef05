"""Drives `banger mcp` with the official SDK: mcp_client.py BANGER HOME SOURCES, HOME is BANGER_HOME, SOURCES may be read."""

import base64
import os
import signal
import subprocess
import sys
import time
import warnings

import anyio
import jsonschema
from mcp import MCPError
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters

BANGER, HOME, SOURCES = sys.argv[1:]
# What the newest protocol has no more, the older ones have.
warnings.simplefilter("ignore")

BOUNDS = ["--max-vms", "2", "--max-memory", "1G", "--max-lifetime", "10m", "--workspace", SOURCES]


def server(*more):
    return StdioServerParameters(command=BANGER, args=["--as", "banger", "mcp", *more], env={"BANGER_HOME": HOME})


def row(what, said):
    print(f"| {what} | {said} |", flush=True)


async def good(client, name, **arguments):
    result = await client.call_tool(name, arguments)
    assert not result.is_error, f"{name} {arguments}: {result}"
    return result.structured_content


async def refused(client, code, word, name, **arguments):
    result = await client.call_tool(name, arguments)
    error = (result.structured_content or {}).get("error", {})
    told = f"{name} {arguments}: {result}"
    assert result.is_error and error["code"] == code and word in error["message"], told
    return error


async def introduces_itself(client):
    tools = (await client.list_tools()).tools
    for tool in tools:
        jsonschema.Draft202012Validator.check_schema(tool.input_schema)
        assert tool.input_schema["additionalProperties"] is False and tool.description
        assert tool.annotations is not None
    names = sorted(tool.name for tool in tools)
    assert names == ["vm_create", "vm_delete", "vm_export_patch", "vm_list", "vm_read_file", "vm_run_command", "vm_write_file"], names
    try:
        await client.call_tool("no_such_tool", {})
        raise AssertionError("a tool that is not there was called")
    except MCPError as e:
        assert e.code == -32602, e
    row(f"tools at {client.protocol_version}", ", ".join(names))


async def limits(client):
    await refused(client, "refused", "1d", "vm_create", lifetime="1d")
    await refused(client, "refused", "memory of 2 GiB", "vm_create", memory="2G")
    await refused(client, "refused", "not below", "vm_create", repository=SOURCES + "-not/repo")
    await refused(client, "refused", "not below", "vm_create", repository=SOURCES + "/way-out")
    await refused(client, "refused", "not below", "vm_create", repository=SOURCES + "/linked")
    await refused(client, "refused", "not below", "vm_create", repository="/etc")
    await refused(client, "refused", "not the internet's", "vm_create", allow=["169.254.169.254"])
    await refused(client, "bad_request", "takes no", "vm_create", secret="x")
    await refused(client, "bad_request", "vcpu", "vm_create", vcpu=0)
    await refused(client, "not_found", "not on this host", "vm_create", image="localhost:1/x:1")
    await refused(client, "not_found", "no VM 'mine'", "vm_run_command", vm="mine", shell="true")
    await refused(client, "not_found", "no VM 'mine'", "vm_read_file", vm="mine", path="/etc/passwd")
    await refused(client, "not_found", "no VM 'mine'", "vm_delete", vm="mine")
    assert (await good(client, "vm_list"))["vms"] == []
    row("limits, folders, another's VM", "refused")


async def commands(client, vm):
    ran = await good(client, "vm_run_command", vm=vm, command=["printf", "%s", "it's $HOME"])
    assert (ran["exit_code"], ran["stdout"]) == (0, "it's $HOME"), ran
    ran = await good(client, "vm_run_command", vm=vm, shell="pwd; cat; echo $A >&2; exit 3", stdin="in", env={"A": "b c"})
    assert (ran["exit_code"], ran["stdout"], ran["stderr"]) == (3, "/root/repo\nin", "b c\n"), ran
    ran = await good(client, "vm_run_command", vm=vm, shell="kill -9 $$", cwd="/")
    assert (ran["exit_code"], ran["signal"]) == (137, "KILL"), ran
    ran = await good(client, "vm_run_command", vm=vm, shell="echo begin; seq 1000000; echo end")
    assert ran["stdout_truncated"] and ran["stdout"].startswith("begin\n1\n") and ran["stdout"].endswith("end\n"), ran["stdout"][-90:]
    assert len(ran["stdout"]) < 70_000 and "bytes left out" in ran["stdout"]
    ran = await good(client, "vm_run_command", vm=vm, command=["sleep", "300"], timeout_seconds=1)
    assert ran["timed_out"] and ran["exit_code"] == 124, ran
    await refused(client, "bad_request", "needs command or shell", "vm_run_command", vm=vm)
    row("commands", "exit codes, streams, signals, limits as asked")


async def cancelled(client, vm):
    begun = time.monotonic()
    with anyio.move_on_after(3) as scope:
        await client.call_tool("vm_run_command", {"vm": vm, "shell": "echo $$ >/tmp/pid; exec sleep 299"})
    assert scope.cancelled_caught
    # What is not there any more has no /proc; until then the guest's kernel is asked again.
    ran = await good(
        client, "vm_run_command", vm=vm, timeout_seconds=30, shell="while [ -e /proc/$(cat /tmp/pid) ]; do sleep 0.2; done"
    )
    assert ran["exit_code"] == 0, ran
    row("cancelled", f"the command is dead {time.monotonic() - begun - 3:.1f} s later")


async def meanwhile(client, vm):
    took = []

    async def slow():
        await good(client, "vm_run_command", vm=vm, command=["sleep", "4"])
        took.append("slow")

    async with anyio.create_task_group() as group:
        group.start_soon(slow)
        await anyio.sleep(0.5)
        begun = time.monotonic()
        if client.protocol_version < "2026":
            await client.send_ping()
        await client.list_tools()
        await good(client, "vm_list")
        assert not took, "they waited for the slow command"
        row("ping, tools/list and vm_list while a command runs", f"{time.monotonic() - begun:.2f} s")


async def files(client, vm):
    read = await good(client, "vm_read_file", vm=vm, path="/etc/os-release")
    assert "Debian" in read["content"] and not read["truncated"], read
    read = await good(client, "vm_read_file", vm=vm, path="file", offset=2, max_bytes=3)
    assert (read["content"], read["size"], read["truncated"]) == ("e\nt", 15, True), read
    data = bytes(range(256)) * 100
    sent = base64.b64encode(data).decode()
    await good(client, "vm_write_file", vm=vm, path="a/new folder/data", content=sent, encoding="base64")
    read = await good(client, "vm_read_file", vm=vm, path="/root/repo/a/new folder/data")
    assert read["encoding"] == "base64" and base64.b64decode(read["content"]) == data
    await good(client, "vm_write_file", vm=vm, path="/tmp/run", content="#!/bin/sh\necho ran\n", executable=True)
    ran = await good(client, "vm_run_command", vm=vm, command=["/tmp/run"])
    assert ran["stdout"] == "ran\n", ran
    await refused(client, "not_found", "no regular file", "vm_read_file", vm=vm, path="/etc")
    await refused(client, "not_found", "no regular file", "vm_read_file", vm=vm, path="none")
    await refused(client, "bad_request", "is a folder", "vm_write_file", vm=vm, path="/etc", content="")
    await refused(client, "bad_request", "base64", "vm_write_file", vm=vm, path="x", content="?", encoding="base64")
    row("files", "text, binary, parts, a new folder")


async def patch(client, vm):
    await good(client, "vm_run_command", vm=vm, shell="echo three >>file && git commit -qam three && echo four >>file")
    made = await good(client, "vm_export_patch", vm=vm)
    clone = SOURCES + "-clone"
    subprocess.run(["git", "clone", "-q", SOURCES + "/repo", clone], check=True)
    subprocess.run(["git", "-C", clone, "checkout", "-q", made["base"]], check=True)
    subprocess.run(["git", "-C", clone, "apply"], input=made["patch"].encode(), check=True)
    with open(clone + "/file") as file:
        assert file.read() == "one\ntwo\nedited\nthree\nfour\n"
    assert os.path.getsize(clone + "/a/new folder/data") == 25600
    own = await good(client, "vm_export_patch", vm=vm, since="prepared")
    assert "+edited" not in own["patch"] and "+four" in own["patch"], own
    with open(SOURCES + "/repo/file") as file:
        assert file.read() == "one\ntwo\nedited\n", "the host's file was changed"
    row("patch", f"{made['bytes']} bytes, applied to a clone; the host's repository as it was")


async def crowded(client, vm):
    other = await good(client, "vm_create", memory="512M", vcpu=1)
    assert other["network"] == "none" and other["repository"] is None and other["deleted_at"], other
    error = await refused(client, "refused", "all 2", "vm_create", memory="128M")
    assert error["hints"], error
    await refused(client, "not_found", "no repository", "vm_export_patch", vm=other["vm"])
    listed = await good(client, "vm_list")
    assert {shown["vm"] for shown in listed["vms"]} == {vm, other["vm"]}, listed
    await good(client, "vm_delete", vm=other["vm"])
    with anyio.move_on_after(1.5) as scope:
        await client.call_tool("vm_create", {"memory": "512M"})
    assert scope.cancelled_caught
    await refused(client, "not_found", "no VM", "vm_delete", vm=other["vm"])
    assert [shown["vm"] for shown in (await good(client, "vm_list"))["vms"]] == [vm]
    row("a third VM", "refused, and there is room again after vm_delete")


async def whole(begun):
    async with Client(server(*BOUNDS), mode="legacy") as client:
        assert client.server_info.name == "banger" and "10m" in client.instructions
        await introduces_itself(client)
        await limits(client)
        heard = []

        async def hear(progress, total, message):
            heard.append(message)

        arguments = {"repository": SOURCES + "/repo", "memory": "512M"}
        result = await client.call_tool("vm_create", arguments, progress_callback=hear)
        assert not result.is_error, result
        made = result.structured_content
        assert made["vm"].startswith("mcp-") and made["repository"] == "/root/repo", made
        assert len(heard) > 2 and made["untracked_files_left_out"] == 1, (heard, made)
        row("a VM with a repository", f"{made['seconds']} s, {len(heard)} steps told")
        for story in [commands, meanwhile, cancelled, files, patch, crowded]:
            await story(client, made["vm"])
        begun.append(time.monotonic())


async def stateless():
    async with Client(server(*BOUNDS)) as client:
        assert client.protocol_version == "2026-07-28", client.protocol_version
        await introduces_itself(client)
        assert (await good(client, "vm_list"))["limits"]["vms"] == 2
    async with Client(server("--no-network"), mode="legacy") as client:
        await refused(client, "refused", "--no-network", "vm_create", nat=True)
        await refused(client, "refused", "not below", "vm_create", repository=SOURCES + "/repo")


def child():
    own = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as stat:
                fields = stat.read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid():
            own.append(int(pid))
    assert len(own) == 1, own
    return own[0]


async def killed_by(number):
    async with Client(server(*BOUNDS), mode="legacy") as client:
        await good(client, "vm_create", memory="256M")
        os.kill(child(), number)


def only_the_owners():
    words = [BANGER, "--as", "banger", "vm", "list", "-q"]
    own = {"BANGER_HOME": HOME, "PATH": os.environ["PATH"]}
    shown = subprocess.run(words, env=own, capture_output=True, text=True, check=True)
    assert shown.stdout == "mine\n", shown.stdout


async def main():
    begun = []
    await whole(begun)
    row("after stdin was closed the server has ended within", f"{time.monotonic() - begun[0]:.1f} s")
    only_the_owners()
    await stateless()
    await killed_by(signal.SIGTERM)
    only_the_owners()
    row("SIGTERM", "no VM is left when the server has ended")
    # The daemon has to notice: whoever runs this waits for it.
    await killed_by(signal.SIGKILL)


anyio.run(main)
