//! The cage of a mover process: what it cannot do any more once it serves a target, whatever it is told and whatever breaks in it.
//!
//! | what | by |
//! |---|---|
//! | open, make, rename or remove a file by name | Landlock, and no system call that could |
//! | connect, listen, start a program, trace or signal another process | no system call that could; one on another host may connect to the ports of its remote ends |
//! | make memory executable, map more than [`MEMORY_LIMIT`] of it | seccomp, RLIMIT_DATA |
//! | leave payload behind in a core file | RLIMIT_CORE |
//!
//! A system call that is not listed here fails with EPERM and ends nothing: a library that tries one it can do without goes on. Files
//! and the socket that the process has stay open. It does not keep a mover from writing where it was granted nothing in a file that
//! it was given: that is the mover's own promise, see [`protocol::mover`].
//!
//! Follows landlock(7), seccomp(2), getrlimit(2).

use std::collections::BTreeMap;

use landlock::{
    ABI, Access, AccessFs, AccessNet, NetPort, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus,
};
use nix::sys::resource::{Resource, setrlimit};
use protocol::mover::MAX_FILES;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};
use tracing::{debug, info, warn};

use super::job::BUFFER_LIMIT;
use super::process::MAX_JOBS;

/// Most bytes of memory that the process may have as its own.
pub const MEMORY_LIMIT: u64 = 1 << 30;
/// Besides buffers: stacks, messages, jobs, and what the allocator keeps.
const MEMORY_BESIDES: u64 = 256 << 20;
const _: () = assert!(MAX_JOBS as u64 * BUFFER_LIMIT + MEMORY_BESIDES <= MEMORY_LIMIT, "every job has room for its buffers");

/// Each file of a job twice, as it came and as its end has it, and some that are always open.
const FILES_LIMIT: u64 = (MAX_JOBS * MAX_FILES * 2 + 64) as u64;

/// What a mover may connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// Nothing: it is handed what it needs.
    Nothing,
    /// Ports with these numbers, on another host than the target's. Which addresses, the filter cannot see: the mover itself connects
    /// to those that its own configuration names.
    Portals(Vec<u16>),
}

impl Reach {
    fn ports(&self) -> &[u16] {
        match self {
            Self::Nothing => &[],
            Self::Portals(ports) => ports,
        }
    }
}

/// Shuts this process and all threads it will start in, as far as the kernel can, and says what it cannot. To be called before there
/// is a second thread.
pub fn confine(reach: &Reach) {
    for (what, resource, limit) in [
        ("memory", Resource::RLIMIT_DATA, MEMORY_LIMIT),
        ("core files", Resource::RLIMIT_CORE, 0),
        ("open files", Resource::RLIMIT_NOFILE, FILES_LIMIT),
    ] {
        if let Err(error) = limit_to(resource, limit) {
            warn!(%error, what, "the mover's limit could not be set");
        }
    }
    let files = AccessFs::from_all(ABI::V5);
    let rules = Ruleset::default().handle_access(files).and_then(|rules| rules.handle_access(AccessNet::from_all(ABI::V5)));
    let ports = reach.ports().iter().map(|port| Ok::<_, RulesetError>(NetPort::new(*port, AccessNet::ConnectTcp)));
    let rules = rules.and_then(Ruleset::create).and_then(|rules| rules.add_rules(ports));
    match rules.and_then(|rules| rules.restrict_self()) {
        Ok(status) if status.ruleset == RulesetStatus::FullyEnforced => debug!("no file can be opened by name"),
        Ok(status) => info!(status = ?status.ruleset, "this kernel confines the mover's files in part"),
        Err(error) => warn!(%error, "this kernel does not confine the mover's files"),
    }
    let filtered = filters(reach).map_err(|error| error.to_string());
    let applied = filtered
        .and_then(|[thread, calls]| apply_filter(&thread).and_then(|()| apply_filter(&calls)).map_err(|error| error.to_string()));
    match applied {
        Ok(()) => debug!("system calls are confined"),
        Err(error) => warn!(error, "this kernel does not confine the mover's system calls"),
    }
}

/// Never above what the process may have already.
fn limit_to(resource: Resource, limit: u64) -> nix::Result<()> {
    let (_, hard) = nix::sys::resource::getrlimit(resource)?;
    let limit = limit.min(hard);
    setrlimit(resource, limit, limit)
}

/// Two filters: clone3 is to look as if the kernel did not have it, so that libc takes clone, whose flags a filter can see.
fn filters(reach: &Reach) -> Result<[BpfProgram; 2], BackendError> {
    let arch = std::env::consts::ARCH.try_into()?;
    let no_clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let absent = SeccompAction::Errno(libc::ENOSYS as u32);
    let thread = SeccompFilter::new(no_clone3, SeccompAction::Allow, absent, arch)?;
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let calls = SeccompFilter::new(allowed(reach)?, refused, SeccompAction::Allow, arch)?;
    Ok([thread.try_into()?, calls.try_into()?])
}

/// What a mover needs: its files, its socket, threads, time, memory, and its own end.
fn allowed(reach: &Reach) -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ANY.iter().map(|call| (*call, Vec::new())).collect();
    let mut only = |call: i64, argument, len, op, value: u64| -> Result<(), BackendError> {
        let condition = SeccompCondition::new(argument, len, op, value)?;
        rules.entry(call).or_default().push(SeccompRule::new(vec![condition])?);
        Ok(())
    };
    let masked = |mask: i32| Op::MaskedEq(mask as u32 as u64);
    let executable = masked(libc::PROT_EXEC);
    only(libc::SYS_mmap, 2, Len::Dword, executable.clone(), 0)?;
    only(libc::SYS_mprotect, 2, Len::Dword, executable, 0)?;
    only(libc::SYS_clone, 0, Len::Dword, masked(libc::CLONE_THREAD), libc::CLONE_THREAD as u64)?;
    // The status of an open file.
    only(libc::SYS_newfstatat, 3, Len::Dword, masked(libc::AT_EMPTY_PATH), libc::AT_EMPTY_PATH as u64)?;
    only(libc::SYS_statx, 2, Len::Dword, masked(libc::AT_EMPTY_PATH), libc::AT_EMPTY_PATH as u64)?;
    only(libc::SYS_ioctl, 1, Len::Dword, Op::Eq, libc::FICLONERANGE)?;
    // On a socket that is connected.
    only(libc::SYS_sendto, 4, Len::Qword, Op::Eq, 0)?;
    only(libc::SYS_prctl, 0, Len::Dword, Op::Eq, libc::PR_SET_NAME as u64)?;
    // To ask, not to set.
    only(libc::SYS_prlimit64, 2, Len::Qword, Op::Eq, 0)?;
    only(libc::SYS_tgkill, 0, Len::Dword, Op::Eq, u64::from(std::process::id()))?;
    if matches!(reach, Reach::Portals(_)) {
        for family in [libc::AF_INET, libc::AF_INET6] {
            only(libc::SYS_socket, 0, Len::Dword, Op::Eq, family as u64)?;
        }
        for call in [libc::SYS_connect, libc::SYS_getsockopt] {
            rules.insert(call, Vec::new());
        }
        rules.insert(
            libc::SYS_setsockopt,
            vec![SeccompRule::new(vec![SeccompCondition::new(1, Len::Dword, Op::Eq, libc::IPPROTO_TCP as u64)?])?],
        );
    }
    Ok(rules)
}

/// Allowed whatever their arguments.
const ANY: &[i64] = &[
    // Files and the socket.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_fallocate,
    libc::SYS_copy_file_range,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_close,
    libc::SYS_recvmsg,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_ppoll,
    // Memory.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // Threads and time. clone3 is refused by the other filter, in its own way.
    libc::SYS_clone3,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_ioprio_set,
    libc::SYS_membarrier,
    libc::SYS_restart_syscall,
    // Signals to itself, and the end.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_are_filters() {
        let [thread, calls] = filters(&Reach::Nothing).unwrap();
        assert!(!thread.is_empty() && calls.len() > ANY.len());
    }

    #[test]
    fn nothing_that_opens_starts_or_connects_is_allowed() {
        let rules = allowed(&Reach::Nothing).unwrap();
        let never = [
            libc::SYS_openat,
            libc::SYS_openat2,
            libc::SYS_open_by_handle_at,
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_bind,
            libc::SYS_accept4,
            libc::SYS_ptrace,
            libc::SYS_kill,
            libc::SYS_process_vm_writev,
            libc::SYS_pidfd_getfd,
            libc::SYS_io_uring_setup,
            libc::SYS_bpf,
            libc::SYS_unlinkat,
            libc::SYS_renameat2,
            libc::SYS_mount,
        ];
        assert_eq!(never.iter().find(|call| rules.contains_key(call)), None);
    }
}
