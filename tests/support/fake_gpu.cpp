// A CUDA device for a torch that was built without: one stream, on which all is done at once.

#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

static const c10::Device DEVICE(c10::DeviceType::CUDA, 0);

struct Guard : c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::CUDA> {
  c10::Device exchangeDevice(c10::Device) const override { return DEVICE; }
  c10::Device getDevice() const override { return DEVICE; }
  c10::Stream getStream(c10::Device) const noexcept override {
    return c10::Stream(c10::Stream::DEFAULT, DEVICE);
  }
  c10::Stream getNewStream(c10::Device, int) const override { return getStream(DEVICE); }
  c10::Stream exchangeStream(c10::Stream) const noexcept override { return getStream(DEVICE); }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag)
      const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
};
namespace c10::impl {
C10_REGISTER_GUARD_IMPL(CUDA, Guard)
}

struct There : at::CUDAHooksInterface {
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool hasCUDA() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
};
static_assert(sizeof(There) == sizeof(at::CUDAHooksInterface));

static at::CUDAHooksInterface none;
static There there;

// Torch keeps the first hooks that it finds. All that they have is their functions.
extern "C" void plug(bool in) {
  at::CUDAHooksInterface& now = in ? there : none;
  *(void**)&at::detail::getCUDAHooks() = *(void**)&now;
}
