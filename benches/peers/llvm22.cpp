// What of LLVM 22 only has a C++ interface: `jitlink::link` without ORC round it, and MCJIT with its ObjectCache.
#include "peer.h"
#include "llvm/ExecutionEngine/ExecutionEngine.h"
#include "llvm/ExecutionEngine/JITLink/ELF_x86_64.h"
#include "llvm/ExecutionEngine/JITLink/JITLink.h"
#include "llvm/ExecutionEngine/JITLink/JITLinkMemoryManager.h"
#include "llvm/ExecutionEngine/MCJIT.h"
#include "llvm/ExecutionEngine/ObjectCache.h"
#include "llvm/ExecutionEngine/SectionMemoryManager.h"
#include "llvm/IR/LLVMContext.h"
#include "llvm/IR/Module.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/TargetSelect.h"
#include <cstdio>
#include <deque>
#include <dlfcn.h>
#include <string>
using namespace llvm;

namespace jitlink_alone {
using FinalizedAlloc = jitlink::JITLinkMemoryManager::FinalizedAlloc;

jitlink::InProcessMemoryManager &memory() {
  static auto Manager = cantFail(jitlink::InProcessMemoryManager::Create());
  return *Manager;
}

// The least that a link needs: symbols of the process, the address of one symbol, and the memory. No unwind tables are
// registered: that is done by ORC's plugins, so this peer does less than the others.
struct Context final : jitlink::JITLinkContext {
  const char *Wanted;
  void *&Address;
  FinalizedAlloc &Memory;

  Context(const char *Wanted, void *&Address, FinalizedAlloc &Memory)
      : JITLinkContext(nullptr), Wanted(Wanted), Address(Address), Memory(Memory) {}

  jitlink::JITLinkMemoryManager &getMemoryManager() override { return memory(); }
  void notifyFailed(Error E) override { logAllUnhandledErrors(std::move(E), errs(), "jitlink: "); }
  void lookup(const LookupMap &Symbols, std::unique_ptr<jitlink::JITLinkAsyncLookupContinuation> Then) override {
    jitlink::AsyncLookupResult Found;
    for (auto &Symbol : Symbols) {
      auto Name = std::string(*Symbol.first);
      auto Address = orc::ExecutorAddr::fromPtr(dlsym(RTLD_DEFAULT, Name.c_str()));
      Found[Symbol.first] = {Address, JITSymbolFlags::Exported};
    }
    Then->run(std::move(Found));
  }
  Error notifyResolved(jitlink::LinkGraph &Graph) override {
    for (auto *Symbol : Graph.defined_symbols())
      if (Symbol->hasName() && *Symbol->getName() == Wanted) Address = Symbol->getAddress().toPtr<void *>();
    return Error::success();
  }
  void notifyFinalized(FinalizedAlloc Done) override { Memory = std::move(Done); }
  Error modifyPassConfig(jitlink::LinkGraph &, jitlink::PassConfiguration &) override { return Error::success(); }
};

void *load(const void *object, size_t size, const char *symbol, void **handle) {
  static auto Names = std::make_shared<orc::SymbolStringPool>();
  MemoryBufferRef Bytes(StringRef(static_cast<const char *>(object), size), "object");
  auto Graph = jitlink::createLinkGraphFromObject(Bytes, Names);
  if (!Graph) {
    logAllUnhandledErrors(Graph.takeError(), errs(), "jitlink: ");
    return nullptr;
  }
  void *Address = nullptr;
  auto *Memory = new FinalizedAlloc;
  *handle = Memory;
  jitlink::link(std::move(*Graph), std::make_unique<Context>(symbol, Address, *Memory));
  return Address;
}

void unload(void *handle) {
  auto *Memory = static_cast<FinalizedAlloc *>(handle);
  cantFail(memory().deallocate(std::move(*Memory)));
  delete Memory;
}
} // namespace jitlink_alone

namespace mcjit {
// Gives the same object for every module, as a hit does.
struct Hit final : ObjectCache {
  StringRef Bytes;
  void notifyObjectCompiled(const Module *, MemoryBufferRef) override {}
  std::unique_ptr<MemoryBuffer> getObject(const Module *) override { return MemoryBuffer::getMemBufferCopy(Bytes); }
} Cache;

struct Engine {
  Module *Empty;
  ExecutionEngine *MCJIT;
};
// An engine cannot free one of its objects, so each load has an engine of its own, made beforehand.
std::deque<Engine> Ready;

void prepare() {
  static LLVMContext Context;
  static bool Done = (InitializeNativeTarget(), InitializeNativeTargetAsmPrinter(), true);
  (void)Done;
  auto Empty = std::make_unique<Module>("module", Context);
  Engine Made{Empty.get(), nullptr};
  std::string Why;
  EngineBuilder Builder(std::move(Empty));
  Builder.setEngineKind(EngineKind::JIT).setErrorStr(&Why);
  Made.MCJIT = Builder.setMCJITMemoryManager(std::make_unique<SectionMemoryManager>()).create();
  if (!Made.MCJIT) {
    fprintf(stderr, "MCJIT: %s\n", Why.c_str());
    return;
  }
  Made.MCJIT->setObjectCache(&Cache);
  Ready.push_back(Made);
}

void *load(const void *object, size_t size, const char *symbol, void **handle) {
  if (Ready.empty()) prepare();
  Engine Taken = Ready.front();
  Ready.pop_front();
  Cache.Bytes = StringRef(static_cast<const char *>(object), size);
  Taken.MCJIT->generateCodeForModule(Taken.Empty);
  Taken.MCJIT->finalizeObject();
  *handle = Taken.MCJIT;
  return reinterpret_cast<void *>(Taken.MCJIT->getFunctionAddress(symbol));
}

void unload(void *handle) { delete static_cast<ExecutionEngine *>(handle); }

void *lookup(void *handle, const char *symbol) {
  return reinterpret_cast<void *>(static_cast<ExecutionEngine *>(handle)->getFunctionAddress(symbol));
}
} // namespace mcjit

extern "C" {
Peer peers[] = {
    {"LLVM 22 raw jitlink::link (no unwind tables)", nullptr, jitlink_alone::load, jitlink_alone::unload, nullptr},
    {"LLVM 22 MCJIT, ObjectCache hit", mcjit::prepare, mcjit::load, mcjit::unload, mcjit::lookup},
    {nullptr, nullptr, nullptr, nullptr, nullptr}};
}
