//! The way into a displaced instruction and back.

use std::arch::naked_asm;
use std::mem::offset_of;

/// FSGSBASE instructions may be used.
pub(crate) const FAST_BASES: u32 = 1;
/// Vector, mask and x87 registers are loaded from `area`.
pub(crate) const STATE: u32 = 2;
/// ... by XRSTOR, else by FXRSTOR.
pub(crate) const XSAVE: u32 = 4;
/// The upper halves of vector registers exist and are cleaned afterwards.
pub(crate) const UPPER: u32 = 8;
/// The registers go back to `area` afterwards.
pub(crate) const KEEP: u32 = 16;

/// What the displaced instruction starts from and what it leaves.
#[repr(C)]
pub(crate) struct Frame {
    /// General registers in the order of the encoding.
    pub(crate) registers: [u64; 16],
    pub(crate) flags: u64,
    /// The base that moves the instruction's operand.
    pub(crate) gs: u64,
    pub(crate) stub: u64,
    exit: u64,
    pub(crate) area: *mut u8,
    pub(crate) features: u64,
    pub(crate) mode: u32,
    control: u16,
    _unused: u16,
    host_stack: u64,
    host_fs: u64,
    host_gs: u64,
    itself: u64,
    host_mxcsr: u32,
    _unused_too: u32,
}

const _: () = assert!(offset_of!(Frame, exit) == EXIT_OFFSET as usize);
/// Where the address lies, relative to FS, that a stub ends by jumping to.
pub(crate) const EXIT_OFFSET: u32 = 152;

impl Frame {
    /// A frame without vector state.
    pub(crate) fn new(registers: [u64; 16], flags: u64, mode: u32) -> Self {
        Self {
            registers,
            flags,
            gs: 0,
            stub: 0,
            exit: 0,
            area: std::ptr::null_mut(),
            features: 0,
            mode,
            control: 0,
            _unused: 0,
            host_stack: 0,
            host_fs: 0,
            host_gs: 0,
            itself: 0,
            host_mxcsr: 0,
            _unused_too: 0,
        }
    }
}

/// Loads the frame's registers, runs the stub, and puts what it left into the frame.
///
/// While the stub runs the FS base is the frame's address: that is how the way back is found although every general
/// register belongs to the instruction. So nothing may interrupt that uses thread-local storage.
///
/// # Safety
/// All signals are blocked. `stub` is code that ends with `jmp fs:[EXIT_OFFSET]`, and its memory operand, with the
/// base `gs`, is memory of ours that is large enough for it. `area` is as `mode` and `features` say, and the frame
/// is alone with it.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn run(frame: *mut Frame) {
    naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov r12, rdi",
        "mov [r12 + {host_stack}], rsp",
        "mov [r12 + {itself}], r12",
        "lea rax, [rip + 4f]",
        "mov [r12 + {exit}], rax",
        "stmxcsr [r12 + {host_mxcsr}]",
        "fnstcw [r12 + {control}]",
        // The bases.
        "test dword ptr [r12 + {mode}], {fast}",
        "jz 20f",
        "rdfsbase rax",
        "mov [r12 + {host_fs}], rax",
        "rdgsbase rax",
        "mov [r12 + {host_gs}], rax",
        "wrfsbase r12",
        "mov rax, [r12 + {gs}]",
        "wrgsbase rax",
        "jmp 2f",
        "20:",
        "lea rsi, [r12 + {host_fs}]",
        "mov edi, 0x1003",
        "mov eax, 158",
        "syscall",
        "lea rsi, [r12 + {host_gs}]",
        "mov edi, 0x1004",
        "mov eax, 158",
        "syscall",
        "mov rsi, [r12 + {gs}]",
        "mov edi, 0x1001",
        "mov eax, 158",
        "syscall",
        "mov rsi, r12",
        "mov edi, 0x1002",
        "mov eax, 158",
        "syscall",
        "2:",
        // Vector, mask and x87 registers.
        "test dword ptr [r12 + {mode}], {state}",
        "jz 3f",
        "mov rbx, [r12 + {area}]",
        "mov eax, [r12 + {features}]",
        "mov edx, [r12 + {features} + 4]",
        "test dword ptr [r12 + {mode}], {xsave}",
        "jz 5f",
        "xrstor64 [rbx]",
        "jmp 3f",
        "5:",
        "fxrstor64 [rbx]",
        "3:",
        "push qword ptr [r12 + {flags}]",
        "popfq",
        "mov rax, fs:[0]",
        "mov rcx, fs:[8]",
        "mov rdx, fs:[16]",
        "mov rbx, fs:[24]",
        "mov rsp, fs:[32]",
        "mov rbp, fs:[40]",
        "mov rsi, fs:[48]",
        "mov rdi, fs:[56]",
        "mov r8, fs:[64]",
        "mov r9, fs:[72]",
        "mov r10, fs:[80]",
        "mov r11, fs:[88]",
        "mov r12, fs:[96]",
        "mov r13, fs:[104]",
        "mov r14, fs:[112]",
        "mov r15, fs:[120]",
        "jmp qword ptr fs:[{stub}]",
        "4:",
        "mov fs:[0], rax",
        "mov fs:[8], rcx",
        "mov fs:[16], rdx",
        "mov fs:[24], rbx",
        "mov fs:[32], rsp",
        "mov fs:[40], rbp",
        "mov fs:[48], rsi",
        "mov fs:[56], rdi",
        "mov fs:[64], r8",
        "mov fs:[72], r9",
        "mov fs:[80], r10",
        "mov fs:[88], r11",
        "mov fs:[96], r12",
        "mov fs:[104], r13",
        "mov fs:[112], r14",
        "mov fs:[120], r15",
        "mov rsp, fs:[{host_stack}]",
        "mov r12, fs:[{itself}]",
        "pushfq",
        "pop qword ptr [r12 + {flags}]",
        "cld",
        "test dword ptr [r12 + {mode}], {state}",
        "jz 6f",
        "test dword ptr [r12 + {mode}], {keep}",
        "jz 8f",
        "mov rbx, [r12 + {area}]",
        "mov eax, [r12 + {features}]",
        "mov edx, [r12 + {features} + 4]",
        "test dword ptr [r12 + {mode}], {xsave}",
        "jz 7f",
        "xsave64 [rbx]",
        "jmp 8f",
        "7:",
        "fxsave64 [rbx]",
        "8:",
        "fninit",
        "fldcw [r12 + {control}]",
        "ldmxcsr [r12 + {host_mxcsr}]",
        "test dword ptr [r12 + {mode}], {upper}",
        "jz 6f",
        "vzeroupper",
        "6:",
        "test dword ptr [r12 + {mode}], {fast}",
        "jz 9f",
        "mov rax, [r12 + {host_gs}]",
        "wrgsbase rax",
        "mov rax, [r12 + {host_fs}]",
        "wrfsbase rax",
        "jmp 22f",
        "9:",
        "mov rsi, [r12 + {host_gs}]",
        "mov edi, 0x1001",
        "mov eax, 158",
        "syscall",
        "mov rsi, [r12 + {host_fs}]",
        "mov edi, 0x1002",
        "mov eax, 158",
        "syscall",
        "22:",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
        host_stack = const offset_of!(Frame, host_stack),
        itself = const offset_of!(Frame, itself),
        exit = const offset_of!(Frame, exit),
        host_mxcsr = const offset_of!(Frame, host_mxcsr),
        control = const offset_of!(Frame, control),
        mode = const offset_of!(Frame, mode),
        host_fs = const offset_of!(Frame, host_fs),
        host_gs = const offset_of!(Frame, host_gs),
        gs = const offset_of!(Frame, gs),
        area = const offset_of!(Frame, area),
        features = const offset_of!(Frame, features),
        flags = const offset_of!(Frame, flags),
        stub = const offset_of!(Frame, stub),
        fast = const FAST_BASES,
        state = const STATE,
        xsave = const XSAVE,
        upper = const UPPER,
        keep = const KEEP,
    )
}
