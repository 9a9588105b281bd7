"""What Jupyter starts: `python -m neuroscope_bridge.kernel -f CONNECTION`."""

from ipykernel.kernelapp import IPKernelApp

from neuroscope_bridge.kernel.kernel import NeuroScopeKernel

if __name__ == "__main__":
    IPKernelApp.launch_instance(kernel_class=NeuroScopeKernel)
