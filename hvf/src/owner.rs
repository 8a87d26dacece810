use crate::sys::Api;

/// Everything that needs the machine to stay holds one of these.
#[derive(Debug)]
pub(crate) struct VmInner {
    pub(crate) api: Api,
}

impl Drop for VmInner {
    fn drop(&mut self) {
        // SAFETY: the engine has a virtual machine (`Vm::new` succeeded) and no
        // vCPU is left, because each holds an `Arc` of this.
        // A failure leaves nothing to do: the process ends with its machine.
        let _ = unsafe { (self.api.vm_destroy)() };
    }
}
